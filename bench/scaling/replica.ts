import type { Clock } from './clock.ts';
import { type CostCurve, runMicros } from './costs.ts';

/** The run that served a job. Times in microseconds. */
export interface Run {
  readonly queueMicros: number;
  readonly runMicros: number;
  readonly batchSize: number;
  readonly batchTokens: number;
}

/** The part that one sequence has in a run. */
export interface Job {
  /** Tokens to run through the model. */
  readonly tokens: number;
  /** Number of context tokens whose keys and values are read. */
  readonly context: number;
  readonly done: (run: Run) => void;
}

interface Waiting {
  readonly job: Job;
  readonly since: number;
}

export interface ReplicaSettings {
  readonly curve: CostCurve;
  /** Maximum number of sequences in one run. */
  readonly slots: number;
  /** Maximum total of tokens in one run; a single sequence may exceed it. */
  readonly tokens: number;
  /** Microseconds that a run waits for more jobs; 0 as in engine/src/scheduler.ts. */
  readonly gather: number;
  /** Run times vary uniformly by up to this share in either direction. */
  readonly jitter: number;
}

/** Counts since the last reset. */
export interface Work {
  runs: number;
  jobs: number;
  tokens: number;
  busyMicros: number;
}

/** One service on its own GPU. When a run ends, the jobs that wait form the next batch in order of arrival (engine/src/scheduler.ts). */
export class Replica {
  readonly #clock: Clock;
  readonly #settings: ReplicaSettings;
  readonly #random: () => number;
  #waiting: Waiting[] = [];
  #running = false;
  #work: Work = { runs: 0, jobs: 0, tokens: 0, busyMicros: 0 };

  constructor(clock: Clock, settings: ReplicaSettings, random: () => number) {
    this.#clock = clock;
    this.#settings = settings;
    this.#random = random;
  }

  get work(): Readonly<Work> {
    return this.#work;
  }

  reset(): void {
    this.#work = { runs: 0, jobs: 0, tokens: 0, busyMicros: 0 };
  }

  submit(job: Job): void {
    this.#waiting.push({ job, since: this.#clock.now });
    if (this.#running) return;
    this.#running = true;
    // scheduled as a separate event, so that all jobs arriving at this time share the run
    this.#clock.at(this.#clock.now + this.#settings.gather, () => this.#run());
  }

  #run(): void {
    const { curve, jitter, gather } = this.#settings;
    const batch = this.#next();
    let [tokens, context] = [0, 0];
    const started = this.#clock.now;
    for (const { job } of batch) {
      tokens += job.tokens;
      context += job.context;
    }
    const micros = runMicros(curve, tokens, context) * (1 + jitter * (2 * this.#random() - 1));
    this.#clock.at(this.#clock.now + micros, () => {
      const work = this.#work;
      work.runs++;
      work.jobs += batch.length;
      work.tokens += tokens;
      work.busyMicros += micros;
      // Answers take time to cross the network, so the next jobs of these sequences arrive too late for the run that starts now.
      this.#running = this.#waiting.length > 0;
      if (this.#running && gather > 0) this.#clock.at(this.#clock.now + gather, () => this.#run());
      else if (this.#running) this.#run();
      const run = { runMicros: micros, batchSize: batch.length, batchTokens: tokens };
      for (const { job, since } of batch) job.done({ ...run, queueMicros: started - since });
    });
  }

  #next(): Waiting[] {
    const { slots, tokens } = this.#settings;
    let taken = 0;
    let size = 0;
    for (const { job } of this.#waiting) {
      if (taken === slots || (taken > 0 && size + job.tokens > tokens)) break;
      size += job.tokens;
      taken++;
    }
    return this.#waiting.splice(0, taken);
  }
}

import type { Random } from '../random.ts';
import { sum } from '../statistics.ts';
import type { Clock } from './clock.ts';
import { type CostCurve, runMicros } from './costs.ts';

/** The run that served a job. All times are in microseconds. */
export interface Run {
  readonly queueMicros: number;
  readonly runMicros: number;
  readonly batchSize: number;
  readonly batchTokens: number;
}

/** One sequence's share of a run. */
export interface Job {
  /** Number of tokens to run through the model. */
  readonly tokens: number;
  /** Number of context tokens whose keys and values are read. */
  readonly context: number;
  readonly done: (run: Run) => void;
}

type QueuedJob = Job & { readonly queuedAt: number };

export interface ReplicaSettings {
  readonly curve: CostCurve;
  /** Maximum number of sequences in one run. */
  readonly slots: number;
  /** Maximum number of tokens in one run. A single sequence may exceed it. */
  readonly tokens: number;
  /** Maximum share by which run times vary, uniformly in either direction. */
  readonly jitter: number;
}

/** Totals of the runs since the last reset. */
const noWork = () => ({ runs: 0, jobs: 0, tokens: 0, busyMicros: 0 });
export type Work = ReturnType<typeof noWork>;

/**
 * One service on its own GPU. When a run ends, the waiting jobs form the next batch in order of arrival
 * (engine/src/scheduler.ts).
 */
export class Replica {
  readonly #clock: Clock;
  readonly #settings: ReplicaSettings;
  readonly #random: Random;
  #queue: QueuedJob[] = [];
  #running = false;
  work = noWork();

  constructor(clock: Clock, settings: ReplicaSettings, random: Random) {
    this.#clock = clock;
    this.#settings = settings;
    this.#random = random;
  }

  reset(): void {
    this.work = noWork();
  }

  submit(job: Job): void {
    this.#queue.push({ ...job, queuedAt: this.#clock.now });
    if (this.#running) return;
    this.#running = true;
    // The run is scheduled as a separate event, so that all jobs arriving at this time share it.
    this.#clock.at(this.#clock.now, () => this.#run());
  }

  #run(): void {
    const { curve, jitter } = this.#settings;
    const batch = this.#nextBatch();
    const tokens = sum(batch.map((job) => job.tokens));
    const context = sum(batch.map((job) => job.context));
    const started = this.#clock.now;
    const micros = runMicros(curve, tokens, context) * (1 + jitter * (2 * this.#random.next() - 1));
    this.#clock.at(started + micros, () => {
      this.work.runs++;
      this.work.jobs += batch.length;
      this.work.tokens += tokens;
      this.work.busyMicros += micros;
      // Answers take time to cross the network, so the next jobs of these sequences arrive too late for the run that
      // starts now.
      this.#running = this.#queue.length > 0;
      if (this.#running) this.#run();
      const run = { runMicros: micros, batchSize: batch.length, batchTokens: tokens };
      for (const { queuedAt, done } of batch) done({ ...run, queueMicros: started - queuedAt });
    });
  }

  #nextBatch(): QueuedJob[] {
    const { slots, tokens } = this.#settings;
    let [count, total] = [0, 0];
    for (const job of this.#queue) {
      total += job.tokens;
      if (count === slots || (count > 0 && total > tokens)) break;
      count++;
    }
    return this.#queue.splice(0, count);
  }
}

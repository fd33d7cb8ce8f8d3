import { PtpError } from '@ptp/protocol/errors';
import type { RunFacts } from './engine-metrics.ts';
import type { RunResult } from './types.ts';

/** What a waiting slot's part of a run yields, and where its time went. Times in microseconds. */
export interface Served<Output> {
  readonly output: Output;
  /** From submission to the start of the run. */
  readonly queueMicros: number;
  /** The whole run, shared with the batch. */
  readonly runMicros: number;
  /** Slots in the run. */
  readonly batchSize: number;
  /** Tokens in the run over all slots. */
  readonly batchTokens: number;
}

/** Bounds of the batches and of the queue before them. */
export interface SchedulerLimits {
  /** Slots in one run, at least 1. */
  readonly slots: number;
  /** Tokens in one run over all slots; a single slot may exceed it. */
  readonly tokens: number;
  /** Slots waiting; one more is refused with `resource_exhausted`. */
  readonly queue: number;
}

interface Job<Slot, Output> {
  readonly slot: Slot;
  readonly submitted: number;
  readonly signal: AbortSignal;
  readonly traceparent: string | undefined;
  resolve(served: Served<Output>): void;
  reject(error: unknown): void;
}

/**
 * Continuous batching: whatever waits when a run ends forms the next one, first come first served. A sequence submits one slot
 * at a time, and a long prompt comes in chunks, each at the queue's end, so nobody waits for more than one chunk of another's prompt.
 */
export class Scheduler<Slot, Output> {
  readonly #run: (slots: Slot[]) => Promise<RunResult<Output>>;
  readonly #tokensOf: (slot: Slot) => number;
  readonly #limits: SchedulerLimits;
  readonly #observe: ((run: RunFacts) => void) | undefined;
  #waiting: Job<Slot, Output>[] = [];
  #running = false;

  constructor(
    run: (slots: Slot[]) => Promise<RunResult<Output>>,
    tokensOf: (slot: Slot) => number,
    limits: SchedulerLimits,
    observe?: (run: RunFacts) => void,
  ) {
    this.#run = run;
    this.#tokensOf = tokensOf;
    this.#limits = limits;
    this.#observe = observe;
  }

  /**
   * Runs the slot with others as soon as the engine is free.
   *
   * @param traceparent of the caller's span, for who observes the run
   * @throws PtpError `resource_exhausted` when the queue is full; the signal's reason when it aborts before the run starts
   */
  submit(slot: Slot, signal: AbortSignal, traceparent?: string): Promise<Served<Output>> {
    if (this.#waiting.length >= this.#limits.queue) {
      throw new PtpError('resource_exhausted', `overloaded: ${this.#limits.queue} runs are waiting already`);
    }
    return new Promise((resolve, reject) => {
      this.#waiting.push({ slot, submitted: performance.now(), signal, traceparent, resolve, reject });
      if (!this.#running) void this.#serve();
    });
  }

  async #serve(): Promise<void> {
    this.#running = true;
    // Slots submitted in the same turn of the event loop share the first run.
    await Promise.resolve();
    for (let batch = this.#next(); batch.length > 0; batch = this.#next()) {
      await this.#runBatch(batch);
    }
    this.#running = false;
  }

  async #runBatch(batch: readonly Job<Slot, Output>[]): Promise<void> {
    const started = performance.now();
    try {
      const { outputs, runMicros } = await this.#run(batch.map((job) => job.slot));
      const batchTokens = batch.reduce((sum, { slot }) => sum + this.#tokensOf(slot), 0);
      const slots = batch.map(({ submitted, traceparent }) => ({
        queueMicros: Math.round((started - submitted) * 1000),
        traceparent,
      }));
      batch.forEach((job, i) => {
        const { queueMicros } = slots[i] as (typeof slots)[number];
        job.resolve({ output: outputs[i] as Output, queueMicros, runMicros, batchSize: batch.length, batchTokens });
      });
      this.#observe?.({ slots, runMicros, batchTokens });
    } catch (error) {
      // One slot must not take the others down: each gets a run of its own, which rewrites the same rows.
      if (batch.length > 1) for (const job of batch) await this.#runBatch([job]);
      else batch[0]?.reject(error);
    }
  }

  /** Takes the next batch off the queue; cancelled jobs leave it unserved. */
  #next(): Job<Slot, Output>[] {
    const batch: Job<Slot, Output>[] = [];
    let tokens = 0;
    while (this.#waiting.length > 0 && batch.length < this.#limits.slots) {
      const job = this.#waiting[0] as Job<Slot, Output>;
      if (job.signal.aborted) {
        job.reject(job.signal.reason);
      } else {
        const size = this.#tokensOf(job.slot);
        if (batch.length > 0 && tokens + size > this.#limits.tokens) break;
        tokens += size;
        batch.push(job);
      }
      this.#waiting.shift();
    }
    return batch;
  }
}

import { PtpError } from '@ptp/protocol/errors';
import type { EngineInfo, RunResult } from './types.ts';

/** Maximum number of tokens in one run of a service, over all slots. */
export const BATCH_TOKENS = 192;

/** Output and timings of a slot. All times are in microseconds. */
export interface Served<Output> {
  readonly output: Output;
  /** Time from submission to the start of the run. */
  readonly queueMicros: number;
  /** Duration of the run, which the whole batch shares. */
  readonly runMicros: number;
  /** Number of slots in the run. */
  readonly batchSize: number;
  /** Number of tokens in the run, over all slots. */
  readonly batchTokens: number;
}

/** Statistics of one run. All times are in microseconds. */
export interface RunStats {
  /** Queueing time and caller's span of each slot. */
  readonly slots: readonly { readonly queueMicros: number; readonly traceparent?: string | undefined }[];
  readonly runMicros: number;
  readonly batchTokens: number;
}

/** Listener that a scheduler calls after each run. */
export type RunObserver = (run: RunStats) => void;

/** Limits that the drafter and the verifier share. */
export interface ServiceLimits {
  /** Maximum number of prompt tokens per slot in one run. */
  readonly prefillChunk: number;
  /** Maximum number of tokens in one run, over all slots. A single slot may exceed it. */
  readonly batchTokens: number;
  /** Maximum number of open sequences. */
  readonly sequences: number;
  /** Maximum number of waiting slots. Further slots are rejected with `resource_exhausted`. */
  readonly queue: number;
}

/** Part of an engine that a scheduler uses. */
export interface BatchRunner<Slot, Output> {
  readonly info: Pick<EngineInfo, 'maxSlots'>;
  run(slots: readonly Slot[]): Promise<RunResult<Output>>;
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
 * Continuous batching: the slots that wait when a run ends form the next run, first come, first served. A sequence
 * submits one slot at a time, and each chunk of a long prompt goes to the end of the queue. No sequence therefore waits
 * for more than one chunk of another sequence.
 */
export class Scheduler<Slot, Output> {
  readonly #engine: BatchRunner<Slot, Output>;
  readonly #tokensOf: (slot: Slot) => number;
  readonly #limits: Pick<ServiceLimits, 'batchTokens' | 'queue'>;
  readonly #observe: RunObserver | undefined;
  #waiting: Job<Slot, Output>[] = [];
  #running = false;

  /** @param tokensOf function that returns the number of tokens that a slot adds to a run */
  constructor(
    engine: BatchRunner<Slot, Output>,
    tokensOf: (slot: Slot) => number,
    limits: Pick<ServiceLimits, 'batchTokens' | 'queue'>,
    observe?: RunObserver,
  ) {
    this.#engine = engine;
    this.#tokensOf = tokensOf;
    this.#limits = limits;
    this.#observe = observe;
  }

  /**
   * Runs the slot in the next batch that has room.
   *
   * @param traceparent the caller's span, for the observer
   * @throws PtpError `resource_exhausted` if the queue is full, or the reason of `signal` if it aborts before the run
   *   starts
   */
  submit(slot: Slot, signal: AbortSignal, traceparent?: string): Promise<Served<Output>> {
    if (this.#waiting.length >= this.#limits.queue) {
      throw new PtpError(
        'resource_exhausted',
        `overloaded: the maximum of ${this.#limits.queue} waiting steps is reached`,
      );
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
    for (let batch = this.#next(); batch.length > 0; batch = this.#next()) await this.#runBatch(batch);
    this.#running = false;
  }

  async #runBatch(batch: readonly Job<Slot, Output>[]): Promise<void> {
    const started = performance.now();
    try {
      const { outputs, runMicros } = await this.#engine.run(batch.map((job) => job.slot));
      const batchTokens = batch.reduce((sum, { slot }) => sum + this.#tokensOf(slot), 0);
      const slots = batch.map(({ submitted, traceparent, resolve }, i) => {
        const queueMicros = Math.round((started - submitted) * 1000);
        resolve({ output: outputs[i] as Output, queueMicros, runMicros, batchSize: batch.length, batchTokens });
        return { queueMicros, traceparent };
      });
      this.#observe?.({ slots, runMicros, batchTokens });
    } catch (error) {
      // One slot must not make the others fail, so run each slot alone. This writes the same rows again.
      if (batch.length > 1) for (const job of batch) await this.#runBatch([job]);
      else batch[0]?.reject(error);
    }
  }

  /** Removes the next batch from the queue. Cancelled jobs leave the queue without a run. */
  #next(): Job<Slot, Output>[] {
    const batch: Job<Slot, Output>[] = [];
    let tokens = 0;
    while (this.#waiting.length > 0 && batch.length < this.#engine.info.maxSlots) {
      const job = this.#waiting[0] as Job<Slot, Output>;
      if (job.signal.aborted) {
        job.reject(job.signal.reason);
      } else {
        const size = this.#tokensOf(job.slot);
        if (batch.length > 0 && tokens + size > this.#limits.batchTokens) break;
        tokens += size;
        batch.push(job);
      }
      this.#waiting.shift();
    }
    return batch;
  }
}

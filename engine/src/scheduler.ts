import { PtpError } from '@ptp/protocol/errors';
import type { EngineInfo, RunResult } from './types.ts';

/** Output of a slot, and where its time went. Times in microseconds. */
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

/** Statistics of one run. Times in microseconds. */
export interface RunStats {
  /** Waiting time of each slot, with its caller's span. */
  readonly slots: readonly { readonly queueMicros: number; readonly traceparent?: string | undefined }[];
  readonly runMicros: number;
  readonly batchTokens: number;
}

/** Listens to a scheduler; called after each run. */
export type RunObserver = (run: RunStats) => void;

/** Limits that drafter and verifier have in common. */
export interface ServiceLimits {
  /** Prompt tokens that one run reads. */
  readonly prefillChunk: number;
  /** Tokens in one run over all slots; a single slot may exceed it. */
  readonly batchTokens: number;
  /** Sequences open at once. */
  readonly sequences: number;
  /** Slots waiting; one more is rejected with `resource_exhausted`. */
  readonly queue: number;
}

/** The part of an engine that a scheduler uses. */
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
 * Continuous batching: the slots that wait when a run ends form the next one, first come first served. A sequence
 * submits one slot at a time, and a long prompt comes in chunks, each at the queue's end, so no sequence waits for more
 * than one chunk of another.
 */
export class Scheduler<Slot, Output> {
  readonly #engine: BatchRunner<Slot, Output>;
  readonly #tokensOf: (slot: Slot) => number;
  readonly #limits: Pick<ServiceLimits, 'batchTokens' | 'queue'>;
  readonly #observe: RunObserver | undefined;
  #waiting: Job<Slot, Output>[] = [];
  #running = false;

  /** @param tokensOf tokens that a slot adds to a run */
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
   * Runs the slot with others as soon as the engine is free.
   *
   * @param traceparent of the caller's span, for the observer
   * @throws PtpError `resource_exhausted` when the queue is full; the signal's reason if it aborts before the run
   *   starts
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
      // One slot must not fail the others: each gets a run of its own, which rewrites the same rows.
      if (batch.length > 1) for (const job of batch) await this.#runBatch([job]);
      else batch[0]?.reject(error);
    }
  }

  /** Takes the next batch off the queue; cancelled jobs leave it without a run. */
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

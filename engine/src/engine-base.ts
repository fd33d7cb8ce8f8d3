import { PtpError } from '@ptp/protocol/errors';
import type { ContextSlot, EngineInfo, SequenceId } from './types.ts';

interface Pending {
  resolve(value: never): void;
  reject(error: PtpError): void;
}

/**
 * Bookkeeping that engines share: open sequences with their number of rows and bytes, requests in flight, and shutdown.
 */
export abstract class EngineBase {
  readonly info: EngineInfo;
  readonly died: Promise<Error>;
  protected dead: PtpError | undefined;
  readonly #reportDeath: (reason: Error) => void;
  readonly #sequences = new Map<SequenceId, { rows: number; bytes: number }>();
  readonly #pending = new Map<number, Pending>();
  #nextSequence = 1;
  #nextRequest = 1;

  constructor(info: EngineInfo) {
    this.info = info;
    const { promise, resolve } = Promise.withResolvers<Error>();
    this.died = promise;
    this.#reportDeath = resolve;
  }

  open(): SequenceId {
    if (this.dead) throw this.dead;
    const { maxSequences } = this.info;
    if (this.#sequences.size >= maxSequences) {
      throw new PtpError('resource_exhausted', `overloaded: ${maxSequences} sequences are open already`);
    }
    const sequence = this.#nextSequence++;
    this.#sequences.set(sequence, { rows: 0, bytes: 0 });
    return sequence;
  }

  close(sequence: SequenceId): void {
    if (this.#sequences.delete(sequence)) this.release(sequence);
  }

  /** Releases the caches of a sequence that has been closed. */
  protected abstract release(sequence: SequenceId): void;

  usage(): { sequences: number; cacheBytes: number } {
    let cacheBytes = 0;
    for (const { bytes } of this.#sequences.values()) cacheBytes += bytes;
    return { sequences: this.#sequences.size, cacheBytes };
  }

  /** Returns the number of valid rows, or undefined if the sequence is not open. Throws after the engine has ended. */
  protected readonly rowsOf = (sequence: SequenceId): number | undefined => {
    if (this.dead) throw this.dead;
    return this.#sequences.get(sequence)?.rows;
  };

  /** Records the new size of a sequence. Has no effect if the sequence has been closed. */
  protected record(sequence: SequenceId, change: { rows?: number; bytes?: number }): void {
    const entry = this.#sequences.get(sequence);
    if (entry) Object.assign(entry, change);
  }

  /** Records a sequence's number of rows, each of `bytesPerToken` bytes. */
  protected recordRows(sequence: SequenceId, rows: number): void {
    this.record(sequence, { rows, bytes: rows * this.info.bytesPerToken });
  }

  /** Records the rows that a run writes. */
  protected recordRun(slots: readonly ContextSlot[]): void {
    for (const { sequence, at, tokens } of slots) this.recordRows(sequence, at + tokens.length);
  }

  /** Records that a run has failed, so that only the rows before each slot's `at` are valid. */
  protected recordFailure(slots: readonly ContextSlot[]): void {
    for (const { sequence, at } of slots) {
      const entry = this.#sequences.get(sequence);
      if (entry) entry.rows = Math.min(at, entry.rows);
    }
  }

  /** Registers a request, which `settle` answers. The request fails if the engine ends first. */
  protected begin<Answer>(): { id: number; answer: Promise<Answer> } {
    if (this.dead) throw this.dead;
    const id = this.#nextRequest++;
    const { promise: answer, ...pending } = Promise.withResolvers<Answer>();
    this.#pending.set(id, pending);
    return { id, answer };
  }

  protected settle(id: number, outcome: unknown): void {
    const pending = this.#pending.get(id);
    this.#pending.delete(id);
    if (outcome instanceof PtpError) pending?.reject(outcome);
    else pending?.resolve(outcome as never);
  }

  /** Ends the engine after a failure and resolves `died`. */
  protected die(error: PtpError): void {
    if (!this.dead) this.#reportDeath(error);
    this.end(error);
  }

  /** Fails all requests in flight and all later requests. Only the first call has an effect. */
  protected end(error: PtpError): void {
    if (this.dead) return;
    this.dead = error;
    this.#sequences.clear();
    for (const { reject } of this.#pending.values()) reject(error);
    this.#pending.clear();
  }
}

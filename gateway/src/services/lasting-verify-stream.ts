import { setTimeout as sleep } from 'node:timers/promises';
import { PtpError, toPtpError } from '@ptp/core/errors.ts';
import type { Expected, Opened, StepUnderWay, Verdict, VerifyStream } from './streams.ts';

/** Openings that may fail one after another before the stream is given up. */
const MOST_OPENINGS = 10;
/** Pause after the first of them, milliseconds; doubles with each. */
const FIRST_PAUSE_MS = 50;
const LONGEST_PAUSE_MS = 2000;

/** Where a stream begins: what has been committed, of which the first tokens are the prompt. */
export interface Start {
  readonly tokens: readonly number[];
  /** Tokens of these that were generated. */
  readonly generated: number;
}

/** A stream at one verifier. */
export interface OpenStream {
  readonly stream: VerifyStream;
  /** Ends it; `failed` for a loss that is the verifier's. */
  readonly end: (failed: boolean) => void;
}

export interface LastingParts {
  readonly prompt: readonly number[];
  /** Begins a stream; undefined while no verifier can be used. */
  readonly open: (start: Start) => OpenStream | undefined;
  /** Resolves when one can be used; rejects after that time. */
  readonly ready: (timeoutMs: number, signal: AbortSignal) => Promise<void>;
  /** How long a stream waits for another verifier, milliseconds. */
  readonly recoveryMs: number;
  readonly signal: AbortSignal;
  /** Hears of each loss that is to be made good. */
  readonly onLoss: (error: PtpError) => void;
}

/**
 * A Verify stream that outlives its verifier: when that is lost it goes on at another one, or at the same one come back, opened with
 * what has been committed and at the position where it was. The tokens are the same, as a token follows from those before it, the seed
 * and its position.
 */
export class LastingVerifyStream implements VerifyStream {
  readonly #parts: LastingParts;
  readonly #committed: number[] = [];
  readonly #opened: Promise<Opened>;
  #current: OpenStream | undefined;
  #closed = false;
  /** A verifier has been lost: the present one has not been sent all steps, so that one sent for an outcome might follow another one's. */
  #moved = false;

  /** @throws PtpError `unavailable` when no verifier can be used: who comes to the door does not wait */
  constructor(parts: LastingParts) {
    this.#parts = parts;
    this.#current = this.#open();
    if (!this.#current) throw new PtpError('unavailable', 'the verifier is not reachable');
    this.#opened = this.#firstOpened(this.#current);
    this.#opened.catch(() => {}); // whoever awaits it hears of it
  }

  opened(): Promise<Opened> {
    return this.#opened;
  }

  async step(draft: readonly number[], allowed: readonly Uint8Array[], step: StepUnderWay): Promise<Verdict> {
    for (;;) {
      const current = this.#current;
      if (!current) throw new PtpError('internal', 'a step on a stream that is closed');
      try {
        const verdict = await current.stream.step(draft, allowed, step);
        this.#committed.push(...draft.slice(0, verdict.accepted), verdict.nextToken);
        return verdict;
      } catch (error) {
        await this.#recover(error);
      }
    }
  }

  /** The step before it meets the same loss, and goes on elsewhere. */
  async stepAfter(
    expected: Expected,
    draft: readonly number[],
    allowed: readonly Uint8Array[],
    step: StepUnderWay,
  ): Promise<Verdict | undefined> {
    const current = this.#moved ? undefined : this.#current;
    const verdict = await current?.stream.stepAfter(expected, draft, allowed, step).catch(() => undefined);
    if (verdict) this.#committed.push(...draft.slice(0, verdict.accepted), verdict.nextToken);
    return verdict;
  }

  close(): void {
    this.#closed = true;
    this.#current?.end(false);
    this.#current = undefined;
  }

  async #firstOpened(first: OpenStream): Promise<Opened> {
    try {
      return await first.stream.opened();
    } catch (error) {
      // no room is told at the door, unless another verifier has some
      if (toPtpError(error).code !== 'resource_exhausted') return this.#recover(error);
      first.end(true);
      const second = this.#open();
      if (!second) throw error;
      this.#current = second;
      return second.stream.opened();
    }
  }

  /** Goes on elsewhere. @throws what was lost if that can't be made good, or no verifier takes over in time */
  async #recover(lost: unknown): Promise<Opened> {
    const { recoveryMs, ready, onLoss } = this.#parts;
    this.#moved = true;
    const until = performance.now() + recoveryMs;
    let error = toPtpError(lost);
    for (let opening = 0; opening < MOST_OPENINGS; opening++) {
      if (!this.#isLoss(error)) throw error;
      onLoss(error);
      this.#current?.end(true);
      const pause = opening === 0 ? 0 : Math.min(FIRST_PAUSE_MS * 2 ** (opening - 1), LONGEST_PAUSE_MS);
      const left = until - performance.now() - pause;
      if (left <= 0) break;
      try {
        if (pause > 0) await sleep(pause, undefined, { signal: this.#parts.signal });
        await ready(left, this.#parts.signal);
        if (this.#closed) throw new PtpError('cancelled', 'the stream was closed while it waited for a verifier');
        this.#current = this.#open();
        if (!this.#current) throw new PtpError('unavailable', 'the verifier is not reachable');
        return await this.#current.stream.opened();
      } catch (next) {
        error = toPtpError(next);
      }
    }
    const message = `the verifier was lost and none took over within ${Math.round(recoveryMs / 1000)} s`;
    throw new PtpError('unavailable', message, { cause: error });
  }

  #open(): OpenStream | undefined {
    const { prompt, open } = this.#parts;
    return open({ tokens: [...prompt, ...this.#committed], generated: this.#committed.length });
  }

  /** Whether the verifier is at fault, rather than the request or its client. */
  #isLoss({ code }: PtpError): boolean {
    if (this.#closed || this.#parts.signal.aborted) return false;
    return ['unavailable', 'deadline_exceeded', 'resource_exhausted', 'cancelled'].includes(code);
  }
}

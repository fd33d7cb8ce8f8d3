import { setTimeout as sleep } from 'node:timers/promises';
import { PtpError, toPtpError } from '@ptp/protocol/errors';
import { Backoff } from '@ptp/service-kit/backoff';
import { committedTokens } from '../decode/block.ts';
import type { Opened, StepRef, Verdict, VerifyCall, VerifyStream } from '../decode/ports.ts';

/** Maximum number of consecutive failed attempts to open a stream. */
const MOST_OPENINGS = 10;
/** Backoff in milliseconds between attempts to open a stream. */
const FIRST_PAUSE_MS = 50;
const LONGEST_PAUSE_MS = 2000;

/** A stream at one verifier. */
export interface OpenStream {
  readonly stream: VerifyStream;
  /** Ends the stream. `failed` says whether the verifier was lost. */
  readonly end: (failed: boolean) => void;
}

export interface FailoverParts {
  readonly prompt: readonly number[];
  /** Opens a stream with the prompt and the tokens committed since. Returns undefined while no verifier is usable. */
  readonly open: (tokens: readonly number[]) => OpenStream | undefined;
  /** Resolves once a verifier is usable. Rejects after the timeout. */
  readonly ready: (timeoutMs: number, signal: AbortSignal) => Promise<void>;
  /** Maximum time in milliseconds to wait for another verifier. */
  readonly recoveryMs: number;
  readonly signal: AbortSignal;
  /** Called after each loss, before recovery starts. */
  readonly onLoss: (error: PtpError) => void;
}

/**
 * A Verify stream that survives the loss of its verifier. It opens a new stream with the committed tokens, at another
 * verifier or at the same one once it is back. The text does not change, because each token depends only on the tokens
 * before it, the seed and its position.
 */
export class FailoverVerifyStream implements VerifyStream {
  readonly #parts: FailoverParts;
  readonly #committed: number[] = [];
  readonly #opened: Promise<Opened>;
  #current: OpenStream | undefined;
  #closed = false;
  /** The last step sent to the current verifier. */
  #newest: StepRef | undefined;

  /** @throws PtpError `unavailable` if no verifier is usable. New requests do not wait for a verifier */
  constructor(parts: FailoverParts) {
    this.#parts = parts;
    this.#current = this.#open();
    if (!this.#current) throw new PtpError('unavailable', 'the verifier is not reachable');
    this.#opened = this.#firstOpened(this.#current);
    this.#opened.catch(() => {}); // The caller that awaits the promise reports the error.
  }

  opened(): Promise<Opened> {
    return this.#opened;
  }

  async step(call: VerifyCall): Promise<Verdict | undefined> {
    const verdict = call.after ? await this.#stepAhead(call) : await this.#stepUntilAnswered(call);
    if (verdict) this.#committed.push(...committedTokens(call.block, verdict));
    return verdict;
  }

  async #stepUntilAnswered(call: VerifyCall): Promise<Verdict | undefined> {
    for (;;) {
      const current = this.#current;
      if (!current) throw new PtpError('internal', 'a step was sent on a closed stream');
      try {
        this.#newest = call.step;
        return await current.stream.step(call);
      } catch (error) {
        await this.#recover(error);
      }
    }
  }

  /**
   * Sends a step ahead, but only if the last step sent to the current verifier is the step that this one assumes. The
   * verifier checks only that its last step has the assumed outcome, so after any other step it could run this one at
   * the wrong position. If the verifier is lost, returns undefined, because the previous step starts the recovery.
   */
  async #stepAhead(call: VerifyCall): Promise<Verdict | undefined> {
    if (!this.#current || this.#newest !== call.after?.of) return undefined;
    this.#newest = call.step;
    return this.#current.stream.step(call).catch(() => undefined);
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
      // If the verifier is full, another one is tried before the request is rejected.
      if (toPtpError(error).code !== 'resource_exhausted') return this.#recover(error);
      first.end(true);
      const second = this.#open();
      if (!second) throw error;
      this.#current = second;
      return second.stream.opened();
    }
  }

  /**
   * Continues at another verifier.
   *
   * @throws PtpError the original error if the verifier is not at fault, or `unavailable` if no other verifier takes
   *   over in time
   */
  async #recover(lost: unknown): Promise<Opened> {
    const { recoveryMs, ready, onLoss } = this.#parts;
    this.#newest = undefined;
    const until = performance.now() + recoveryMs;
    const backoff = new Backoff(FIRST_PAUSE_MS, LONGEST_PAUSE_MS);
    let error = toPtpError(lost);
    for (let opening = 0; opening < MOST_OPENINGS; opening++) {
      if (!this.#isLoss(error)) throw error;
      onLoss(error);
      this.#current?.end(true);
      const pause = opening === 0 ? 0 : backoff.next();
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
    const message = `the verifier was lost, and no other verifier took over within ${Math.round(recoveryMs / 1000)} s`;
    throw new PtpError('unavailable', message, { cause: error });
  }

  #open(): OpenStream | undefined {
    return this.#parts.open([...this.#parts.prompt, ...this.#committed]);
  }

  /** Returns true if the verifier is at fault, not the request or its client. */
  #isLoss({ code }: PtpError): boolean {
    if (this.#closed || this.#parts.signal.aborted) return false;
    return ['unavailable', 'deadline_exceeded', 'resource_exhausted', 'cancelled'].includes(code);
  }
}

import type { BidiCall, RequestInit } from '@ptp/protocol/client';
import { PtpError, toPtpError } from '@ptp/protocol/errors';
import type { Branch, DrafterService, DraftResponse, DraftResult } from '@ptp/protocol/gen/ptp/v1/drafter_pb';
import { Backoff } from '@ptp/service-kit/backoff';
import type { Draft, DraftCall, DraftStream } from '../decode/ports.ts';
import type { GenerationRequest } from '../decode/types.ts';
import { withTimeout } from './with-timeout.ts';

type Call = BidiCall<RequestInit<typeof DrafterService.method.draft>, DraftResponse>;

/** Backoff before a lost drafter is tried again, milliseconds. */
const FIRST_PAUSE_MS = 250;
const LONGEST_PAUSE_MS = 8000;

/** The step that an answer must match. */
interface Sent {
  readonly step: number;
  readonly assumed: number;
  readonly block: readonly number[];
}

/** Parts of a draft stream. */
export interface DraftStreamParts {
  /** Opens a call; undefined while no drafter is usable. Call `leave` when it has ended, `failed` if the drafter was lost. */
  readonly open: () => { readonly call: Call; readonly leave: (failed: boolean) => void } | undefined;
  readonly request: GenerationRequest;
  /** W3C trace context of the request. */
  readonly traceparent: string;
  /** Timeout of a draft, milliseconds. */
  readonly timeoutMs: number;
  readonly vocabulary: number;
  readonly onFailure: (error: unknown) => void;
}

/** A Draft call that is reopened with the tokens so far after a loss. Drafts never affect the text. */
export class GrpcDraftStream implements DraftStream {
  readonly #parts: DraftStreamParts;
  /** Prompt and everything committed. */
  readonly #tokens: number[];
  /** Number of `#tokens` sent to the drafter. */
  #sentTokens = 0;
  #call: Call | undefined;
  #leave: (failed: boolean) => void = () => {};
  /** Settles when the opening has been answered and `#ready` is set, or has failed. */
  #opening: Promise<void> = Promise.resolve();
  #ready = false;
  /** A step was not answered in time; no other is sent before its late answer, which is dropped. */
  #overdue = false;
  /** Answers arrive in the order of the steps; settles when the last one awaited has arrived. */
  #received: Promise<unknown> = Promise.resolve();
  /** Arrival of the last answer. */
  #answered = 0;
  #steps = 0;
  readonly #backoff = new Backoff(FIRST_PAUSE_MS, LONGEST_PAUSE_MS);
  #retryAt = 0;

  constructor(parts: DraftStreamParts) {
    this.#parts = parts;
    this.#tokens = [...parts.request.prompt];
    this.#connect();
  }

  available(): boolean {
    if (!this.#call && performance.now() >= this.#retryAt) this.#connect();
    return this.#call !== undefined && this.#ready && !this.#overdue;
  }

  async opened(verifierOpened: Promise<unknown>): Promise<void> {
    const opening = this.#opening;
    const late = verifierOpened.then(() => withTimeout(this.#parts.timeoutMs, 'the drafter', opening));
    await Promise.race([opening, late]).catch(() => {});
  }

  commit(tokens: readonly number[]): void {
    this.#tokens.push(...tokens);
  }

  async step({ tokens, confidences, assumed, budget, maxBranchLength, traceparent = '' }: DraftCall): Promise<Draft> {
    const call = this.available() ? this.#call : undefined;
    if (!call) throw new PtpError('unavailable', 'the drafter is not available');
    const sent = performance.now();
    try {
      const committed = this.#tokens.slice(this.#sentTokens);
      this.#sentTokens = this.#tokens.length;
      const step = {
        step: this.#steps++,
        committed,
        block: [...tokens],
        blockConfidences: [...confidences],
        assumed,
        plan: { budget, maxBranchLength },
        trace: { traceparent },
      };
      call.send({ kind: { case: 'step', value: step } });
      const { result, before } = await this.#answer(call, step);
      const { branches: received, timings } = result;
      const branches = assumed > 0 ? received.map((b) => ({ ...b, accepted: b.accepted - assumed })) : received;
      this.#backoff.reset();
      // a step sent before the previous answer is in flight only from that answer on
      const micros = Math.round((performance.now() - Math.max(sent, before)) * 1000);
      const { queueUs: queueMicros = 0, runUs: runMicros = 0, batchSize = 1 } = timings ?? {};
      return { branches, micros, queueMicros, runMicros, batchSize };
    } catch (error) {
      if (!this.#overdue) this.#fail(call, error);
      throw toPtpError(error);
    }
  }

  /** Ends the call. A pending draft is still answered; an overdue or unopened call is reset. */
  close(): void {
    if (this.#ready && !this.#overdue) this.#call?.finish();
    else this.#call?.cancel();
    this.#call = undefined;
    this.#leave(false);
    this.#retryAt = Number.POSITIVE_INFINITY;
  }

  /**
   * The answer, and the arrival of the one before it.
   *
   * @throws PtpError; with `#overdue` set when the answer is only late
   */
  async #answer(call: Call, sent: Sent): Promise<{ result: DraftResult; before: number }> {
    let before = 0;
    const answer = this.#received.then(() => {
      before = this.#answered;
      return call.receive();
    });
    const noted = () => {
      this.#answered = performance.now();
    };
    this.#received = answer.then(noted, noted);
    const response = await withTimeout(this.#parts.timeoutMs, 'the drafter', answer).catch((error) => {
      if (toPtpError(error).code === 'deadline_exceeded' && this.#call === call) this.#await(call, answer);
      throw error;
    });
    if (response?.kind.case !== 'result' || response.kind.value.step !== sent.step) throw ended();
    const { value } = response.kind;
    if (value.branches.every((branch) => isSound(branch, sent, this.#parts.vocabulary))) {
      return { result: value, before };
    }
    throw new PtpError('internal', 'the drafter sent an invalid draft');
  }

  /** Waits for a late answer before the next step. Opening a new call would only add the prompt to the drafter's load. */
  #await(call: Call, late: Promise<unknown>): void {
    this.#overdue = true;
    late.then(
      () => {
        if (this.#call === call) this.#overdue = false;
      },
      (error) => this.#fail(call, error),
    );
  }

  #connect(): void {
    const opened = this.#parts.open();
    this.#retryAt = performance.now() + this.#backoff.delayMs;
    if (!opened) return;
    const { call, leave } = opened;
    this.#call = call;
    this.#leave = leave;
    this.#ready = false;
    this.#overdue = false;
    this.#steps = 0;
    this.#received = Promise.resolve();
    this.#sentTokens = this.#tokens.length;
    const { prompt, sampling, seed } = this.#parts.request;
    const start = {
      tokens: [...this.#tokens],
      sampling: { ...sampling, minP: sampling.minP ?? 0 },
      seed,
      firstPosition: this.#tokens.length - prompt.length,
    };
    const trace = { traceparent: this.#parts.traceparent };
    call.send({ kind: { case: 'open', value: { start, trace } } });
    this.#opening = call.receive().then(
      (response) => {
        if (response?.kind.case !== 'opened') this.#fail(call, ended());
        else if (this.#call === call) this.#ready = true;
      },
      (error) => this.#fail(call, error),
    );
  }

  #fail(call: Call, error: unknown): void {
    if (this.#call !== call) return;
    call.cancel();
    this.#leave(true);
    this.#call = undefined;
    this.#ready = false;
    this.#overdue = false;
    this.#retryAt = performance.now() + this.#backoff.next();
    this.#parts.onFailure(error);
  }
}

/** True if a branch can be passed on to the verifier, which rejects steps with invalid tokens. */
function isSound({ accepted, tokens, confidences }: Branch, { assumed, block }: Sent, vocabulary: number): boolean {
  return (
    accepted >= assumed &&
    accepted <= block.length &&
    tokens.length === confidences.length &&
    tokens.every((token) => token < vocabulary) &&
    confidences.every((confidence) => confidence >= 0 && confidence <= 1)
  );
}

const ended = () => new PtpError('unavailable', 'the drafter ended the stream');

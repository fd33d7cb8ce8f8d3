import { type Span, SpanKind } from '@opentelemetry/api';
import { PtpError } from '@ptp/core/errors.ts';
import type { Branch, DrafterService, DraftResponse } from '@ptp/core/gen/ptp/v1/drafter_pb.ts';
import type { BidiCall } from '@ptp/core/rpc/calls.ts';
import type { RequestInit } from '@ptp/core/rpc/method.ts';
import { attribute, endSpan, span, traceparentOf } from '@ptp/core/telemetry/spans.ts';
import type { GenerationRequest } from './generation.ts';
import type { Draft, DraftStream } from './streams.ts';

type Call = BidiCall<RequestInit<typeof DrafterService.method.draft>, DraftResponse>;

/** Reading the prompt may take this long at the first opening, milliseconds. */
const OPEN_TIMEOUT_MS = 5000;
/** Pause before a lost drafter is tried again, milliseconds; doubles with each failure. */
const FIRST_PAUSE_MS = 250;
const LONGEST_PAUSE_MS = 8000;

/** A Draft call, and after its loss another one, opened with the tokens so far: the text doesn't depend on either. */
export class GrpcDraftStream implements DraftStream {
  readonly #open: () => Call | undefined;
  readonly #request: GenerationRequest;
  readonly #parent: Span;
  readonly #timeoutMs: number;
  readonly #vocabulary: number;
  readonly #onFailure: (error: unknown) => void;
  /** Prompt and everything committed. */
  readonly #tokens: number[];
  /** Tokens of `#tokens` that the drafter knows. */
  #told = 0;
  #call: Call | undefined;
  /** Settles when the open has been answered; `#ready` then says so. */
  #opened: Promise<unknown> = Promise.resolve();
  #ready = false;
  #steps = 0;
  #pauseMs = FIRST_PAUSE_MS;
  #retryAt = 0;
  #first = true;

  /** @param open begins a call; undefined while there is no drafter */
  constructor(
    open: () => Call | undefined,
    request: GenerationRequest,
    parent: Span,
    timeoutMs: number,
    vocabulary: number,
    onFailure: (error: unknown) => void,
  ) {
    this.#open = open;
    this.#request = request;
    this.#parent = parent;
    this.#timeoutMs = timeoutMs;
    this.#vocabulary = vocabulary;
    this.#onFailure = onFailure;
    this.#tokens = [...request.prompt];
    this.#connect();
  }

  get alive(): boolean {
    return this.#call !== undefined && this.#ready;
  }

  commit(tokens: readonly number[]): void {
    this.#tokens.push(...tokens);
  }

  async step(
    block: { readonly tokens: readonly number[]; readonly confidences: readonly number[] },
    plan: { readonly budget: number; readonly maxBranchLength: number },
    parent: Span,
  ): Promise<Draft | undefined> {
    if (!this.#call && performance.now() >= this.#retryAt) this.#connect();
    const call = this.#call;
    if (!call) return undefined;
    let drafting: Span | undefined;
    try {
      // The first draft waits for the prompt to be read, as the verifier's answer does; a reopened stream catches up meanwhile.
      if (this.#first) await within(OPEN_TIMEOUT_MS, this.#opened);
      this.#first = false;
      if (!this.#ready) return undefined;
      const sent = performance.now();
      const attributes = { [attribute.step]: this.#steps, 'ptp.block.length': block.tokens.length };
      drafting = span('ptp.draft', { parent, kind: SpanKind.CLIENT, startTime: sent, attributes });
      const committed = this.#tokens.slice(this.#told);
      this.#told = this.#tokens.length;
      call.send({
        kind: {
          case: 'step',
          value: {
            step: this.#steps++,
            committed,
            block: [...block.tokens],
            blockConfidences: [...block.confidences],
            plan,
            trace: { traceparent: traceparentOf(drafting) },
          },
        },
      });
      const response = await within(this.#timeoutMs, call.receive());
      if (response?.kind.case !== 'result') throw ended();
      this.#pauseMs = FIRST_PAUSE_MS;
      const { branches, timings } = response.kind.value;
      if (!branches.every((branch) => isSound(branch, this.#vocabulary))) {
        throw new PtpError('internal', 'the drafter answered with what cannot be a draft');
      }
      endSpan(drafting, { attributes: { [attribute.branches]: branches.length } });
      const micros = Math.round((performance.now() - sent) * 1000);
      return { branches, micros, runMicros: timings?.runUs ?? 0 };
    } catch (error) {
      if (drafting) endSpan(drafting, { error });
      this.#fail(call, error);
      return undefined;
    }
  }

  close(): void {
    this.#call?.cancel();
    this.#call = undefined;
    this.#retryAt = Number.POSITIVE_INFINITY;
  }

  #connect(): void {
    const call = this.#open();
    this.#retryAt = performance.now() + this.#pauseMs;
    if (!call) return;
    this.#call = call;
    this.#ready = false;
    this.#steps = 0;
    this.#told = this.#tokens.length;
    const { prompt, sampling, seed } = this.#request;
    const start = { tokens: [...this.#tokens], sampling, seed, firstPosition: this.#tokens.length - prompt.length };
    const trace = { traceparent: traceparentOf(this.#parent) };
    call.send({ kind: { case: 'open', value: { start, trace } } });
    this.#opened = call.receive().then(
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
    this.#call = undefined;
    this.#ready = false;
    this.#retryAt = performance.now() + this.#pauseMs;
    this.#pauseMs = Math.min(this.#pauseMs * 2, LONGEST_PAUSE_MS);
    this.#onFailure(error);
  }
}

/** Whether a branch can be passed on to the verifier, which would refuse the stream's step for a token that is none. */
function isSound({ tokens, confidences }: Branch, vocabulary: number): boolean {
  return (
    tokens.length === confidences.length &&
    tokens.every((token) => token < vocabulary) &&
    confidences.every((confidence) => confidence >= 0 && confidence <= 1)
  );
}

const ended = () => new PtpError('unavailable', 'the drafter ended the stream');

/** @throws PtpError `deadline_exceeded` when the promise has not settled after that time */
async function within<T>(milliseconds: number, promise: Promise<T>): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, reject) => {
    const error = new PtpError('deadline_exceeded', `the drafter has not answered for ${milliseconds} ms`);
    timer = setTimeout(() => reject(error), milliseconds);
  });
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}

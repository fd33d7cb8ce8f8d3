import type { BidiCall, RequestInit, Response } from '@ptp/protocol/client';
import { PtpError, toPtpError } from '@ptp/protocol/errors';
import type { Timings } from '@ptp/protocol/gen/ptp/v1/common_pb';
import type { VerifierService } from '@ptp/protocol/gen/ptp/v1/verifier_pb';
import type { AdjustParams } from '@ptp/protocol/token-adjustments';
import type { VerifyTime } from '../decode/cost-model.ts';
import type { AnyOutcome, ExpectedOutcome, Opened, Verdict, VerifyCall, VerifyStream } from '../decode/ports.ts';
import type { GenerationRequest } from '../decode/types.ts';
import { Answers } from './answers.ts';
import { sequenceStart } from './sequence-start.ts';
import { withTimeout } from './with-timeout.ts';

type Method = typeof VerifierService.method.verify;
type Call = BidiCall<RequestInit<Method>, Response<Method>>;
type Answer = Response<Method>['kind'];

/** Parts of a Verify call. */
export interface VerifyStreamParts {
  readonly call: Call;
  readonly request: GenerationRequest;
  /** The prompt, followed by the tokens that have been committed. */
  readonly tokens: readonly number[];
  /** W3C trace context of the request. */
  readonly traceparent: string;
  /** Time in milliseconds after which a verifier that does not answer counts as lost. */
  readonly timeoutMs: number;
  readonly vocabulary: number;
  /** Called with the duration of each verify call. */
  readonly onVerified: (micros: number) => void;
}

/** One Verify call. */
export class GrpcVerifyStream implements VerifyStream {
  readonly #parts: VerifyStreamParts;
  readonly #answers = new Answers(() => this.#receive());
  readonly #opened: Promise<Opened>;
  #steps = 0;
  /** Number of steps without an answer. */
  #pending = 0;
  #isOpen = false;
  /** True once an answer has not arrived in time. */
  #late = false;

  constructor(parts: VerifyStreamParts) {
    this.#parts = parts;
    this.#opened = this.#open();
    this.#opened.catch(() => {}); // The caller that awaits the promise reports the error.
  }

  opened(): Promise<Opened> {
    return this.#opened;
  }

  async #open(): Promise<Opened> {
    const { call, request, tokens, traceparent } = this.#parts;
    const { prompt, adjustments, topCount: topLogProbabilities = 0, logprobs, promptLogprobs = false } = request;
    const tellPrompt = promptLogprobs && tokens.length === prompt.length;
    const value = {
      start: sequenceStart(request, tokens),
      trace: { traceparent },
      topLogProbabilities,
      tellPrompt,
      roughLogProbabilities: !logprobs,
      ...(adjustments && { adjustments: adjustmentsMessage(adjustments) }),
    };
    call.send({ kind: { case: 'open', value } });
    const { answer } = await this.#answers.next(performance.now());
    if (answer.case !== 'opened') throw ended(answer.case);
    this.#isOpen = true;
    const { reusedTokens, promptLogProbabilities: logProbabilities, promptTop: tops } = answer.value;
    return { reusedTokens, ...(tellPrompt && { prompt: { logProbabilities, tops } }) };
  }

  async step({ block, allowed, after, traceparent = '' }: VerifyCall): Promise<Verdict | undefined> {
    const sent = performance.now();
    const order = after && { after: expectation(after) };
    const value = { step: this.#steps++, draft: [...block], allowed: [...allowed], trace: { traceparent }, ...order };
    this.#parts.call.send({ kind: { case: 'step', value } });
    this.#pending++;
    const { answer, micros } = await this.#answers.next(sent);
    this.#pending--;
    if (answer.case !== 'result') throw ended(answer.case);
    const { accepted, nextToken, logProbabilities, timings, top: tops, skipped, truncated } = answer.value;
    if (skipped && after) return undefined;
    const isVerdict =
      accepted <= block.length && nextToken < this.#parts.vocabulary && logProbabilities.length === accepted + 1;
    if (skipped || !isVerdict) throw new PtpError('unavailable', 'the verifier sent an invalid result');
    this.#parts.onVerified(micros);
    return { accepted, nextToken, logProbabilities, tops, truncated, time: timeOf(micros, timings) };
  }

  /** Ends the call. Cancels it if answers are missing, so that the verifier does not run steps sent ahead in vain. */
  close(): void {
    const { call } = this.#parts;
    if (this.#late || !this.#isOpen || this.#pending > 0) call.cancel();
    else call.finish();
  }

  async #receive(): Promise<Answer> {
    const { call, timeoutMs } = this.#parts;
    try {
      const response = await withTimeout(timeoutMs, 'the verifier', call.receive());
      return response?.kind ?? { case: undefined };
    } catch (error) {
      const ours = asOurs(toPtpError(error));
      this.#late ||= ours.code === 'deadline_exceeded';
      throw ours;
    }
  }
}

function expectation(after: ExpectedOutcome | AnyOutcome) {
  if (!('nextToken' in after)) return { any: true };
  return { accepted: after.accepted, nextToken: after.nextToken };
}

function timeOf(micros: number, timings: Timings | undefined): VerifyTime {
  const { queueUs = 0, runUs = 0, batchSize = 1, batchTokens = 1 } = timings ?? {};
  const drafted = Math.max(0, batchTokens / Math.max(1, batchSize) - 1);
  return { micros, queueMicros: queueUs, runMicros: runUs, batchSize: Math.max(1, batchSize), drafted };
}

function adjustmentsMessage({ logitBias, heldBack, ...penalties }: AdjustParams) {
  return { logitBias: Object.fromEntries(logitBias), heldBack: [...heldBack], ...penalties };
}

function ended(got: Answer['case']): PtpError {
  return new PtpError('unavailable', 'the verifier ended the stream', { cause: `got ${got}` });
}

/** Converts an error about arguments to an internal error, because the gateway has already validated the request. */
function asOurs(error: PtpError): PtpError {
  const rejected = ['invalid_argument', 'out_of_range', 'failed_precondition', 'not_found'].includes(error.code);
  return rejected ? new PtpError('internal', 'the verifier rejected a step', { cause: error }) : error;
}

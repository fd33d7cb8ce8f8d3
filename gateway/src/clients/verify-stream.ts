import type { BidiCall, RequestInit, Response } from '@ptp/protocol/client';
import { PtpError, toPtpError } from '@ptp/protocol/errors';
import type { Timings } from '@ptp/protocol/gen/ptp/v1/common_pb';
import type { VerifierService } from '@ptp/protocol/gen/ptp/v1/verifier_pb';
import type { AdjustParams } from '@ptp/protocol/token-adjustments';
import type { VerifyTime } from '../decode/cost-model.ts';
import type { Opened, Verdict, VerifyCall, VerifyStream } from '../decode/ports.ts';
import type { GenerationRequest } from '../decode/types.ts';
import type { Start } from './failover-verify-stream.ts';
import { withTimeout } from './with-timeout.ts';

type Method = typeof VerifierService.method.verify;
type Answers = Response<Method>['kind'];

/** Parts of a Verify call. */
export interface VerifyStreamParts {
  readonly request: GenerationRequest;
  readonly start: Start;
  /** W3C trace context of the request. */
  readonly traceparent: string;
  /** A verifier that takes longer to answer counts as lost, milliseconds. */
  readonly timeoutMs: number;
  readonly vocabulary: number;
}

/** One Verify call. */
export class GrpcVerifyStream implements VerifyStream {
  readonly #call: BidiCall<RequestInit<Method>, Response<Method>>;
  readonly #timeoutMs: number;
  readonly #vocabulary: number;
  readonly #opened: Promise<Opened>;
  #steps = 0;
  /** Answers arrive in the order of the calls; resolves with the arrival time of the last one awaited. */
  #received: Promise<number> = Promise.resolve(0);
  #answered = 0;
  #isOpen = false;
  /** An answer has not come in time. */
  #late = false;

  constructor(call: BidiCall<RequestInit<Method>, Response<Method>>, parts: VerifyStreamParts) {
    const { request, start: from, traceparent, timeoutMs, vocabulary } = parts;
    this.#call = call;
    this.#timeoutMs = timeoutMs;
    this.#vocabulary = vocabulary;
    const { sampling, seed, adjustments: adjust, topCount: topLogProbabilities = 0 } = request;
    const withPrompt = (request.promptLogprobs ?? false) && from.generated === 0;
    const start = {
      tokens: [...from.tokens],
      sampling: { ...sampling, minP: sampling.minP ?? 0 },
      seed,
      firstPosition: from.generated,
    };
    const adjustments = adjust && adjustmentsMessage(adjust);
    const value = {
      start,
      trace: { traceparent },
      topLogProbabilities,
      tellPrompt: withPrompt,
      ...(adjustments && { adjustments }),
    };
    this.#call.send({ kind: { case: 'open', value } });
    this.#opened = this.#receive(performance.now()).then(({ kind }) => {
      if (kind.case !== 'opened') throw ended(kind.case);
      this.#isOpen = true;
      const { reusedTokens, promptLogProbabilities: logProbabilities, promptTop: tops } = kind.value;
      return { reusedTokens, ...(withPrompt && { prompt: { logProbabilities, tops } }) };
    });
    this.#opened.catch(() => {}); // the awaiting caller reports it
  }

  opened(): Promise<Opened> {
    return this.#opened;
  }

  async step({ block, allowed, after, traceparent = '' }: VerifyCall): Promise<Verdict | undefined> {
    const sent = performance.now();
    const order = after && { after: { accepted: after.accepted, nextToken: after.nextToken } };
    const value = { step: this.#steps++, draft: [...block], allowed: [...allowed], trace: { traceparent }, ...order };
    this.#call.send({ kind: { case: 'step', value } });
    const { kind, since } = await this.#receive(sent);
    if (kind.case !== 'result') throw ended(kind.case);
    const { accepted, nextToken, logProbabilities, timings, top: tops, skipped } = kind.value;
    if (skipped && after) return undefined;
    const isVerdict =
      accepted <= block.length && nextToken < this.#vocabulary && logProbabilities.length === accepted + 1;
    if (skipped || !isVerdict) throw new PtpError('unavailable', 'the verifier sent an invalid result');
    // a step sent ahead is in flight only from the previous answer on
    const micros = Math.round((performance.now() - since) * 1000);
    return { accepted, nextToken, logProbabilities, tops, time: timeOf(micros, timings) };
  }

  /** Ends the call. Steps sent ahead are still answered; a late or unopened call is reset. */
  close(): void {
    if (this.#late || !this.#isOpen) this.#call.cancel();
    else this.#call.finish();
  }

  /** The next answer, and the time from which its duration counts: `sent`, or the arrival of the previous answer if later. */
  #receive(sent: number): Promise<{ kind: Answers; since: number }> {
    const received = this.#received.then(async (before) => {
      const answer = await withTimeout(this.#timeoutMs, 'the verifier', this.#call.receive()).catch((error) => {
        const ours = asOurs(toPtpError(error));
        this.#late ||= ours.code === 'deadline_exceeded';
        throw ours;
      });
      this.#answered = performance.now();
      return { kind: answer?.kind ?? { case: undefined }, since: Math.max(sent, before) };
    });
    this.#received = received.then(() => this.#answered);
    this.#received.catch(() => {}); // reported with the answer
    return received;
  }
}

function timeOf(micros: number, timings: Timings | undefined): VerifyTime {
  const { queueUs = 0, runUs = 0, batchSize = 1, batchTokens = 1 } = timings ?? {};
  const drafted = Math.max(0, batchTokens / Math.max(1, batchSize) - 1);
  return { micros, queueMicros: queueUs, runMicros: runUs, batchSize: Math.max(1, batchSize), drafted };
}

function adjustmentsMessage({ logitBias, heldBack, ...penalties }: AdjustParams) {
  return { logitBias: Object.fromEntries(logitBias), heldBack: [...heldBack], ...penalties };
}

function ended(got: Answers['case']): PtpError {
  return new PtpError('unavailable', 'the verifier ended the stream', { cause: `got ${got}` });
}

/** Requests were validated by the gateway, so an error about arguments is internal. */
function asOurs(error: PtpError): PtpError {
  const rejected = ['invalid_argument', 'out_of_range', 'failed_precondition', 'not_found'].includes(error.code);
  return rejected ? new PtpError('internal', 'the verifier rejected a step', { cause: error }) : error;
}

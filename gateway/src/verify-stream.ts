import { type Span, SpanKind } from '@opentelemetry/api';
import { PtpError } from '@ptp/core/errors.ts';
import type { VerifierService } from '@ptp/core/gen/ptp/v1/verifier_pb.ts';
import type { BidiCall } from '@ptp/core/rpc/calls.ts';
import type { Request, RequestInit, Response } from '@ptp/core/rpc/method.ts';
import { attribute, endSpan, span, traceparentOf } from '@ptp/core/telemetry/spans.ts';
import type { GenerationRequest } from './generation.ts';
import type { Verdict, VerifyStream } from './streams.ts';

type Method = typeof VerifierService.method.verify;

/** One Verify call. */
export class GrpcVerifyStream implements VerifyStream {
  readonly #call: BidiCall<RequestInit<Method>, Response<Method>>;
  #steps = 0;

  constructor(call: BidiCall<RequestInit<Method>, Response<Method>>, request: GenerationRequest, parent: Span) {
    this.#call = call;
    const { prompt, sampling, seed } = request;
    const start = { tokens: [...prompt], sampling, seed, firstPosition: 0 };
    const trace = { traceparent: traceparentOf(parent) };
    this.#call.send({ kind: { case: 'open', value: { start, trace } } });
  }

  async opened(): Promise<void> {
    const response = await this.#call.receive();
    if (response?.kind.case !== 'opened') throw unexpected(response?.kind.case);
  }

  async step(draft: readonly number[], parent: Span): Promise<Verdict> {
    const sent = performance.now();
    const attributes = { [attribute.step]: this.#steps, [attribute.draftLength]: draft.length };
    const verifying = span('ptp.verify', { parent, kind: SpanKind.CLIENT, startTime: sent, attributes });
    const trace = { traceparent: traceparentOf(verifying) };
    this.#call.send({ kind: { case: 'step', value: { step: this.#steps++, draft: [...draft], trace } } });
    const response = await this.#call.receive().catch((error) => {
      endSpan(verifying, { error });
      throw error;
    });
    endSpan(verifying);
    if (response?.kind.case !== 'result') throw unexpected(response?.kind.case);
    const { accepted, nextToken, logProbabilities, timings } = response.kind.value;
    return {
      accepted,
      nextToken,
      logProbabilities,
      micros: Math.round((performance.now() - sent) * 1000),
      runMicros: timings?.runUs ?? 0,
    };
  }

  close(): void {
    this.#call.cancel();
  }
}

function unexpected(got: Request<Method>['kind']['case'] | Response<Method>['kind']['case']): PtpError {
  return new PtpError('unavailable', `the verifier ended the stream${got ? ` with an unexpected ${got}` : ''}`);
}

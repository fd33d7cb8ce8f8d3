import { type Attributes, type Span, SpanKind } from '@opentelemetry/api';
import { attribute, contextFrom, endSpan, newTrace, span } from '@ptp/service-kit/spans';
import type { GenerationRequest, PairFacts, StepFacts } from '../decode/types.ts';

/**
 * The span of one generated sequence, by OpenTelemetry's conventions for generative AI; text is added by traced-content.ts, for who asks
 * for it.
 *
 * https://github.com/open-telemetry/semantic-conventions-genai/blob/main/docs/gen-ai/gen-ai-spans.md
 */
export function requestSpan(request: GenerationRequest, facts: PairFacts): Span {
  const { sampling, maxTokens, seed, operation = 'text_completion', requestId, stream, adjustments } = request;
  return span(`${operation} ${facts.modelId}`, {
    parent: contextFrom(request.traceparent, newTrace),
    kind: SpanKind.SERVER,
    attributes: {
      [attribute.operation]: operation,
      [attribute.provider]: 'ptp',
      [attribute.outputType]: 'text',
      [attribute.requestModel]: facts.modelId,
      [attribute.responseModel]: facts.modelId,
      ...(requestId !== undefined && { 'ptp.request.id': requestId }),
      ...(stream && { [attribute.stream]: true }),
      ...(adjustments && {
        [attribute.frequencyPenalty]: adjustments.frequencyPenalty,
        [attribute.presencePenalty]: adjustments.presencePenalty,
      }),
      [attribute.maxTokens]: maxTokens,
      [attribute.temperature]: sampling.temperature,
      [attribute.topP]: sampling.topP,
      [attribute.topK]: sampling.topK,
      // an integer by the conventions, and so only where it is one that JavaScript can tell exactly
      ...(seed <= Number.MAX_SAFE_INTEGER ? { [attribute.seed]: Number(seed) } : { 'ptp.seed': String(seed) }),
    },
  });
}

export function endRequestSpan(
  request: Span,
  end: { failure: unknown; finish: string | undefined; promptTokens: number; tokens: number },
): void {
  const { failure, finish, promptTokens, tokens } = end;
  endSpan(request, {
    ...(failure !== undefined && { error: failure }),
    attributes: {
      [attribute.inputTokens]: promptTokens,
      [attribute.outputTokens]: tokens,
      ...(finish && { [attribute.finishReasons]: [finish] }),
    },
  });
}

/** The span of one step; draft and verify calls are its children. */
export function stepSpan(parent: Span, step: number): Span {
  return span('ptp.step', { parent, attributes: { [attribute.step]: step } });
}

export function stepAttributes(facts: StepFacts): Attributes {
  return {
    [attribute.draftLength]: facts.drafted,
    [attribute.accepted]: facts.accepted,
    [attribute.overlap]: facts.draftMicros > 0,
    'ptp.mode': facts.mode,
    'ptp.mode.reason': facts.reason,
    'ptp.draft.source': facts.source,
    'ptp.draft.offered': facts.offered,
    'ptp.draft.budget': facts.budget,
    'ptp.redraft': facts.redraftMicros > 0,
    'ptp.step_us': facts.stepMicros,
    'ptp.ahead_us': facts.aheadMicros,
  };
}

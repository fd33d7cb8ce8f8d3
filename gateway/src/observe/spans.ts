import { type Attributes, type Span, SpanKind } from '@opentelemetry/api';
import { attribute, contextFrom, endSpan, newTrace, span } from '@ptp/service-kit/spans';
import type { GenerationRequest, ModelInfo, StepStats } from '../decode/types.ts';

/**
 * The span of one generated sequence, by OpenTelemetry's conventions for generative AI; text is added by traced-content.ts, for who asks
 * for it.
 *
 * https://github.com/open-telemetry/semantic-conventions-genai/blob/main/docs/gen-ai/gen-ai-spans.md
 */
export function requestSpan(request: GenerationRequest, model: ModelInfo): Span {
  const { sampling, maxTokens, seed, operation = 'text_completion', requestId, stream, adjustments } = request;
  return span(`${operation} ${model.modelId}`, {
    parent: contextFrom(request.traceparent, newTrace),
    kind: SpanKind.SERVER,
    attributes: {
      [attribute.operation]: operation,
      [attribute.provider]: 'ptp',
      [attribute.outputType]: 'text',
      [attribute.requestModel]: model.modelId,
      [attribute.responseModel]: model.modelId,
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

export function stepAttributes(stats: StepStats): Attributes {
  return {
    [attribute.draftLength]: stats.drafted,
    [attribute.accepted]: stats.accepted,
    [attribute.overlap]: stats.draftMicros > 0,
    'ptp.mode': stats.mode,
    'ptp.mode.reason': stats.reason,
    'ptp.draft.source': stats.source,
    'ptp.draft.offered': stats.offered,
    'ptp.draft.budget': stats.budget,
    'ptp.redraft': stats.redraftMicros > 0,
    'ptp.step_us': stats.stepMicros,
    'ptp.ahead_us': stats.aheadMicros,
  };
}

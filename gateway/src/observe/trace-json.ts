import { stepFigures } from '../decode/step-figures.ts';
import type { CallRecord, RequestTrace, StepRecord } from './request-trace.ts';

/** Summary of a request for /traces.json. Times in microseconds. */
export function traceSummary(trace: RequestTrace): Record<string, unknown> {
  const { request, tokens, steps, micros, firstTokenMicros } = trace;
  const duration = trace.finish === 'running' ? trace.at() : micros;
  const { temperature, topK, topP, minP = 0 } = request.sampling;
  return {
    id: trace.id,
    request_id: request.requestId ?? null,
    trace_id: trace.traceId || null,
    began: new Date(trace.began).toISOString(),
    model: trace.modelId,
    operation: request.operation ?? 'text_completion',
    sampling: { temperature, top_k: topK, top_p: topP, min_p: minP },
    seed: String(request.seed),
    max_tokens: request.maxTokens,
    drafting: request.drafting !== false,
    prompt_tokens: trace.promptTokens,
    cached_tokens: trace.cachedTokens,
    completion_tokens: tokens,
    steps,
    drafted: trace.drafted,
    accepted: trace.accepted,
    tokens_per_step: steps > 0 ? Number((tokens / steps).toFixed(3)) : null,
    duration_us: duration,
    first_token_us: firstTokenMicros || null,
    us_per_token: tokens > 0 ? Math.round(duration / tokens) : null,
    finish: trace.finish,
    error: trace.error ?? null,
  };
}

/** A request with its steps and their calls, for /traces/{id}.json. Start times are relative to the request's. */
export function traceDetail(trace: RequestTrace): Record<string, unknown> {
  return {
    ...traceSummary(trace),
    opening: trace.opening.map(callJson),
    steps_left_out: trace.steps - trace.kept.length,
    step_list: trace.kept.map(stepJson),
  };
}

function stepJson({ start, stats, tokens, calls, branch }: StepRecord) {
  return {
    ...stepFigures(stats),
    start_us: start,
    step_us: stats.stepMicros,
    tokens,
    branch_taken: branch ?? null,
    calls: calls.map(callJson),
  };
}

function callJson(call: CallRecord) {
  return {
    service: call.service,
    kind: call.kind,
    start_us: call.start,
    us: call.micros,
    queue_us: call.queueMicros,
    run_us: call.runMicros,
    batch_size: call.batchSize,
    block: call.block,
    ...(call.branches !== undefined && { branches: call.branches }),
    ...(call.error !== undefined && { error: call.error }),
  };
}

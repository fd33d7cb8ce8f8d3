import {
  type Attributes,
  INVALID_SPAN_CONTEXT,
  ROOT_CONTEXT,
  type Span,
  type SpanContext,
  SpanKind,
  SpanStatusCode,
  TraceFlags,
  type Tracer,
  trace,
} from '@opentelemetry/api';
import { parseTraceParent } from '@opentelemetry/core';
import { toPtpError } from '@ptp/protocol/errors';
import type { Timings } from '@ptp/protocol/gen/ptp/v1/common_pb';

/**
 * Helpers for manual spans. The parts of a step (queue, batch, run) are known only after the step, so spans are
 * recorded with explicit times: `performance.now()` values in milliseconds.
 */

/**
 * Names of attributes. They follow OpenTelemetry's conventions for generative AI if possible, and otherwise begin with
 * `ptp.`.
 */
export const attribute = {
  operation: 'gen_ai.operation.name',
  provider: 'gen_ai.provider.name',
  outputType: 'gen_ai.output.type',
  requestModel: 'gen_ai.request.model',
  responseModel: 'gen_ai.response.model',
  maxTokens: 'gen_ai.request.max_tokens',
  temperature: 'gen_ai.request.temperature',
  topP: 'gen_ai.request.top_p',
  topK: 'gen_ai.request.top_k',
  seed: 'gen_ai.request.seed',
  stream: 'gen_ai.request.stream',
  frequencyPenalty: 'gen_ai.request.frequency_penalty',
  presencePenalty: 'gen_ai.request.presence_penalty',
  finishReasons: 'gen_ai.response.finish_reasons',
  inputTokens: 'gen_ai.usage.input_tokens',
  outputTokens: 'gen_ai.usage.output_tokens',
  cachedTokens: 'gen_ai.usage.cache_read.input_tokens',
  /** Messages as JSON, only if the capture of content is enabled. */
  inputMessages: 'gen_ai.input.messages',
  outputMessages: 'gen_ai.output.messages',
  errorType: 'error.type',
  /** Index of the step in its request, from 0. */
  step: 'ptp.step',
  /** Number of proposed tokens. */
  draftLength: 'ptp.draft.length',
  /** Number of proposed tokens that the target accepted. */
  accepted: 'ptp.accepted',
  /** True for a verify call that was sent ahead, assuming an outcome that did not occur. */
  skipped: 'ptp.skipped',
  /** Number of branches that a draft call returned. */
  branches: 'ptp.draft.branches',
  /**
   * Branch of the concurrent draft that matches the verified outcome: the accepted count that the branch assumes, and
   * the number of tokens left in the branch. Absent if no branch matches.
   */
  branchTaken: 'ptp.branch.taken',
  branchLength: 'ptp.branch.length',
  /** Time in the queue in microseconds. */
  queueMicros: 'ptp.queue_us',
  /** Duration of the engine run in microseconds. */
  runMicros: 'ptp.run_us',
  /** Number of sequences in the engine run. */
  batchSize: 'ptp.batch.size',
  /** True if drafting ran while the target verified. */
  overlap: 'ptp.overlap',
} as const;

/** Parent of spans that must not be recorded, because their request is not sampled. */
export const untraced = Symbol('untraced');
/** Parent of a span that starts a new trace. */
export const newTrace = Symbol('new trace');

/** A span of this process, or the result of `contextFrom` for a span of another process. */
export type Parent = Span | SpanContext | typeof untraced | typeof newTrace;

/** Options of a new span. */
export interface SpanOptions {
  /** Parent of the span. Default: none, which starts a new trace. */
  readonly parent?: Parent;
  readonly attributes?: Attributes;
  /** Start of the span, a `performance.now()` value. Default: now. */
  readonly startTime?: number;
  /** Kind of the span: SERVER for a received call, CLIENT for a call that this process makes. Default: INTERNAL. */
  readonly kind?: SpanKind;
}

const notRecorded = trace.wrapSpanContext(INVALID_SPAN_CONTEXT);
let tracer: Tracer | undefined;

/** Sets the tracer of all spans; `startTracing` calls it. Without a tracer, a span costs only an `if`. */
export function setTracer(newTracer: Tracer | undefined): void {
  tracer = newTracer;
}

/** Starts a span. The caller ends the span with `endSpan`. */
export function span(name: string, options: SpanOptions = {}): Span {
  const { parent = newTrace, attributes, startTime, kind = SpanKind.INTERNAL } = options;
  if (!tracer || parent === untraced) return notRecorded;
  const above = parent === newTrace ? undefined : spanContextOf(parent);
  // A parent in this process has already made the sampling decision, so the sampler decides only for other spans.
  if (above && !above.isRemote && !isSampled(above)) return notRecorded;
  const context = above ? trace.setSpanContext(ROOT_CONTEXT, above) : ROOT_CONTEXT;
  const times = { kind, startTime: wallClock(startTime ?? performance.now()) };
  return tracer.startSpan(name, { ...times, ...(attributes && { attributes }) }, context);
}

/** Records a span that has ended, such as time in a queue or an engine run. */
export function recordSpan(name: string, options: SpanOptions & { startTime: number; endTime: number }): void {
  if (tracer) span(name, options).end(wallClock(options.endTime));
}

/** Ends a span, and marks it as failed if there was an error. Records only the error's code, not its message. */
export function endSpan(
  ended: Span,
  outcome: { error?: unknown; endTime?: number; attributes?: Attributes } = {},
): void {
  if (!ended.isRecording()) return;
  if (outcome.attributes) ended.setAttributes(outcome.attributes);
  if (outcome.error !== undefined) {
    const { code } = toPtpError(outcome.error);
    ended.setAttribute(attribute.errorType, code);
    if (code !== 'cancelled') ended.setStatus({ code: SpanStatusCode.ERROR, message: code });
  }
  ended.end(wallClock(outcome.endTime ?? performance.now()));
}

/**
 * Converts a service's timings to attributes of the caller's span, so that the timings are known even if the service's
 * own spans are lost.
 */
export function timingAttributes(timings: Pick<Timings, 'queueUs' | 'runUs' | 'batchSize'> | undefined): Attributes {
  if (!timings) return {};
  const { queueUs, runUs, batchSize } = timings;
  return { [attribute.queueMicros]: queueUs, [attribute.runMicros]: runUs, [attribute.batchSize]: batchSize };
}

/**
 * Returns the `traceparent` of a span, to be sent to other services (W3C Trace Context). The result is empty if the
 * span is not sampled.
 */
export function traceparentOf(from: Span): string {
  const context = from.spanContext();
  return isSampled(context) ? `00-${context.traceId}-${context.spanId}-01` : '';
}

/**
 * Parses a received `traceparent` into a parent for spans.
 *
 * @param otherwise result if `traceparent` is missing or malformed: `untraced` between our services, which send no
 *   `traceparent` for unsampled requests; `newTrace` where requests enter the system
 */
export function contextFrom(traceparent: string | undefined, otherwise: Parent = untraced): Parent {
  const context = tracer && traceparent ? parseTraceParent(traceparent) : null;
  return context ? { ...context, isRemote: true } : otherwise;
}

/** Returns the labels of an exemplar that links to a span, or no labels if the span is not sampled. */
export function exemplarLabels(within: Parent | undefined): Record<string, string> {
  if (typeof within !== 'object') return {};
  const context = spanContextOf(within);
  return isSampled(context) ? { trace_id: context.traceId, span_id: context.spanId } : {};
}

function spanContextOf(parent: Span | SpanContext): SpanContext {
  return 'traceId' in parent ? parent : parent.spanContext();
}

function isSampled({ traceFlags }: SpanContext): boolean {
  return (traceFlags & TraceFlags.SAMPLED) !== 0;
}

function wallClock(time: number): number {
  return performance.timeOrigin + time;
}

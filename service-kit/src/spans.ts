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
import type { ReadableSpan } from '@opentelemetry/sdk-trace';
import { toPtpError } from '@ptp/protocol/errors';
import type { Timings } from '@ptp/protocol/gen/ptp/v1/common_pb';
import { ChildSpan, type SpanObserver, type SpanOrigin } from './child-span.ts';

/**
 * Spans are written by hand: a step's parts are known only after it (queue, batch, run), and automatic instrumentation
 * has no notion of them. All times are `performance.now()` values, milliseconds.
 */

/** Attribute names: OpenTelemetry's conventions for generative AI where there is one, else `ptp.*`. */
export const attribute = {
  operation: 'gen_ai.operation.name',
  provider: 'gen_ai.provider.name',
  outputType: 'gen_ai.output.type',
  requestModel: 'gen_ai.request.model',
  responseModel: 'gen_ai.response.model',
  responseId: 'gen_ai.response.id',
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
  /** Text, only for who asks for it: messages as JSON. */
  inputMessages: 'gen_ai.input.messages',
  outputMessages: 'gen_ai.output.messages',
  errorType: 'error.type',
  /** Number of the step in its request, from 0. */
  step: 'ptp.step',
  /** Tokens proposed. */
  draftLength: 'ptp.draft.length',
  /** How many of them the target would have picked too. */
  accepted: 'ptp.accepted',
  /** Of a verify that was sent for an outcome which did not come. */
  skipped: 'ptp.skipped',
  /** Branches that a draft call returned. */
  branches: 'ptp.draft.branches',
  /** The draft beside the verify had a branch for what came true: how many tokens of the block that is, and what the branch leaves. */
  branchTaken: 'ptp.branch.taken',
  branchLength: 'ptp.branch.length',
  /** Waiting for a run, microseconds. */
  queueMicros: 'ptp.queue_us',
  /** The engine run, microseconds. */
  runMicros: 'ptp.run_us',
  /** Sequences in that run. */
  batchSize: 'ptp.batch.size',
  /** Whether drafting ran while the target verified. */
  overlap: 'ptp.overlap',
} as const;

/** Parent of spans that are not to be recorded, because their request isn't. */
export const untraced = Symbol('untraced');
/** Parent of a span that begins a trace of its own. */
export const newTrace = Symbol('new trace');

/** A span of this process, or what `contextFrom` made of one elsewhere. */
export type Parent = Span | SpanContext | typeof untraced | typeof newTrace;

/** What a span may be given when it starts. */
export interface SpanOptions {
  /** A new trace unless given. */
  readonly parent?: Parent;
  readonly attributes?: Attributes;
  /** A `performance.now()` value; now unless given. */
  readonly startTime?: number;
  /** INTERNAL unless given; SERVER for what answers a call, CLIENT for what makes one. */
  readonly kind?: SpanKind;
}

const nothing = trace.wrapSpanContext(INVALID_SPAN_CONTEXT);

/** What spans are written to. */
export interface SpanTarget {
  readonly tracer: Tracer;
  /** What makes spans below others without the tracer, which takes several times as long (child-span.ts). */
  readonly children?: {
    readonly observer: SpanObserver;
    /** Whether a span below one of another process is sampled. */
    samples(above: SpanContext): boolean;
  };
}

let target: SpanTarget | undefined;
/** Known with the tracer's first span. */
let origin: SpanOrigin | undefined;

/** Sets what spans are written to; startTracing does. Without it, a span costs an `if`. */
export function setTarget(newTarget: SpanTarget | undefined): void {
  target = newTarget;
  origin = undefined;
}

/** Starts a span, which the caller ends (`endSpan`). */
export function span(name: string, options: SpanOptions = {}): Span {
  const { parent = newTrace, attributes, startTime, kind = SpanKind.INTERNAL } = options;
  if (!target || parent === untraced) return nothing;
  const startMillis = wallClock(startTime ?? performance.now());
  const above = parent === newTrace ? undefined : spanContextOf(parent);
  if (parent !== newTrace && !above) return nothing;
  const { tracer, children } = target;
  // a request's own span may carry text, which the SDK's limits are for
  if (children && above && origin && kind !== SpanKind.SERVER && (!above.isRemote || children.samples(above))) {
    return new ChildSpan({ name, above, kind, attributes, startMillis }, origin, children.observer);
  }
  const context = above ? trace.setSpanContext(ROOT_CONTEXT, above) : ROOT_CONTEXT;
  const started = tracer.startSpan(name, { kind, startTime: startMillis, ...(attributes && { attributes }) }, context);
  if (isRecorded(started)) origin ??= started;
  return started;
}

/** Records what lies in the past: waiting in a queue, a run in the engine. */
export function recordSpan(name: string, options: SpanOptions & { startTime: number; endTime: number }): void {
  if (target) span(name, options).end(wallClock(options.endTime));
}

/** Ends a span, as failed if there was an error; of unforeseen errors only the code is recorded. */
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

/** A service's timings as the caller's span has them too, which so tells them even where the service's own spans are not kept. */
export function timingAttributes(timings: Pick<Timings, 'queueUs' | 'runUs' | 'batchSize'> | undefined): Attributes {
  if (!timings) return {};
  const { queueUs, runUs, batchSize } = timings;
  return { [attribute.queueMicros]: queueUs, [attribute.runMicros]: runUs, [attribute.batchSize]: batchSize };
}

/** A span as the `traceparent` that other services are sent (W3C Trace Context); empty if it isn't recorded. */
export function traceparentOf(from: Span): string {
  const { traceId, spanId, traceFlags } = from.spanContext();
  return traceFlags & TraceFlags.SAMPLED ? `00-${traceId}-${spanId}-01` : '';
}

/** Version 00 has exactly these fields, later versions may have more (section 3.2.4). */
const TRACEPARENT =
  /^(?:00(?=.{53}$)|(?!ff|00)[0-9a-f]{2})-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(?:-|$)/;

/**
 * A received `traceparent` as the parent of spans.
 *
 * @param otherwise what a missing or malformed one means: `untraced` between our services, which send none for requests
 *   that aren't recorded; `newTrace` where requests enter
 */
export function contextFrom(traceparent: string | undefined, otherwise: Parent = untraced): Parent {
  if (!target || !traceparent || !TRACEPARENT.test(traceparent)) return otherwise;
  return {
    traceId: traceparent.slice(3, 35),
    spanId: traceparent.slice(36, 52),
    traceFlags: Number.parseInt(traceparent.slice(53, 55), 16),
    isRemote: true,
  };
}

/** Labels of an exemplar that leads to a span; none if the span is not sampled. */
export function exemplarLabels(within: Parent | undefined): Record<string, string> {
  if (typeof within !== 'object') return {};
  const { traceId, spanId, traceFlags } = 'traceId' in within ? within : within.spanContext();
  return traceFlags & TraceFlags.SAMPLED ? { trace_id: traceId, span_id: spanId } : {};
}

/** Of a span that is to have others below it; undefined if this process doesn't record it, and so neither what is below it. */
function spanContextOf(parent: Span | SpanContext): SpanContext | undefined {
  if ('traceId' in parent) return parent;
  return isRecorded(parent) ? parent.spanContext() : undefined;
}

function isRecorded(span: Span): span is Span & ReadableSpan {
  return 'resource' in span;
}

function wallClock(time: number): number {
  return performance.timeOrigin + time;
}

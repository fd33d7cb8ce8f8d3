import {
  type Attributes,
  type Context,
  createContextKey,
  INVALID_SPAN_CONTEXT,
  isSpanContextValid,
  ROOT_CONTEXT,
  type Span,
  SpanKind,
  SpanStatusCode,
  TraceFlags,
  type Tracer,
  trace,
} from '@opentelemetry/api';
import { toPtpError } from '../errors.ts';
import type { Timings } from '../gen/ptp/v1/common_pb.ts';

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
export const untraced: Context = ROOT_CONTEXT.setValue(createContextKey('ptp untraced'), true);
/** Parent of a span that begins a trace of its own. */
export const newTrace: Context = ROOT_CONTEXT;

/** What a span may be given when it starts. */
export interface SpanOptions {
  /** A span of this process, or what `contextFrom` made of one elsewhere; a new trace unless given. */
  readonly parent?: Span | Context;
  readonly attributes?: Attributes;
  /** A `performance.now()` value; now unless given. */
  readonly startTime?: number;
  /** INTERNAL unless given; SERVER for what answers a call, CLIENT for what makes one. */
  readonly kind?: SpanKind;
}

const nothing = trace.wrapSpanContext(INVALID_SPAN_CONTEXT);

let tracer: Tracer | undefined;

/** Sets the tracer that spans are written to; startTracing does. Without one, a span costs an `if`. */
export function setTracer(newTracer: Tracer | undefined): void {
  tracer = newTracer;
}

/** Starts a span, which the caller ends, with `span.end(performance.now())` where precision matters. */
export function span(name: string, { parent = newTrace, attributes, startTime, kind }: SpanOptions = {}): Span {
  if (!tracer || parent === untraced) return nothing;
  const isSpan = 'spanContext' in parent;
  if (isSpan && !isSpanContextValid(parent.spanContext())) return nothing;
  return tracer.startSpan(
    name,
    {
      kind: kind ?? SpanKind.INTERNAL,
      startTime: wallClock(startTime ?? performance.now()),
      ...(attributes && { attributes }),
    },
    isSpan ? trace.setSpan(ROOT_CONTEXT, parent) : parent,
  );
}

/** Records what lies in the past: waiting in a queue, a run in the engine. */
export function recordSpan(name: string, options: SpanOptions & { startTime: number; endTime: number }): void {
  if (tracer) span(name, options).end(wallClock(options.endTime));
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

/**
 * A received `traceparent` as the parent of spans.
 *
 * @param otherwise what a missing or malformed one means: `untraced` between our services, which send none for requests
 *   that aren't recorded; `newTrace` where requests enter
 */
export function contextFrom(traceparent: string | undefined, otherwise: Context = untraced): Context {
  if (!tracer || !traceparent) return otherwise;
  // version 00 has exactly these fields, later versions may have more (section 3.2.4)
  const match = /^(?!ff)([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?$/.exec(traceparent);
  const [, version, traceId = '', spanId = '', flags = '', rest] = match ?? [];
  const spanContext = { traceId, spanId, traceFlags: Number.parseInt(flags, 16), isRemote: true };
  if (!isSpanContextValid(spanContext) || (version === '00' && rest !== undefined)) return otherwise;
  return trace.setSpanContext(ROOT_CONTEXT, spanContext);
}

/** A span as the context of what is measured within it (`Histogram.record`), so that it leads to the span; undefined if that isn't sampled. */
export function contextOf(within: Span | undefined): Context | undefined {
  const sampled = within && within.spanContext().traceFlags & TraceFlags.SAMPLED;
  return sampled ? trace.setSpan(ROOT_CONTEXT, within) : undefined;
}

function wallClock(time: number): number {
  return performance.timeOrigin + time;
}

import { type Attributes, type Context, SpanStatusCode, TraceFlags } from '@opentelemetry/api';
import type { ReadableSpan, Span, SpanProcessor } from '@opentelemetry/sdk-trace';

/** Spans of one request that are held back, and requests at once; what goes beyond is not exported by this rule. */
const SPANS_HELD = 4096;
const REQUESTS_HELD = 1024;

/** The spans of one request in this process. */
interface Held {
  readonly rootId: string;
  readonly spans: ReadableSpan[];
}

/**
 * Exports what the sampler did not choose if it turns out to matter: spans that are recorded but not sampled are held until the request's
 * own span, the topmost of this process, ends, and passed on if that failed or took `slowMillis`. Other processes know nothing of it:
 * for them the request is not sampled, so that such a trace has this process's spans only. Needs a sampler that has all recorded
 * (createAlwaysRecordSampler).
 */
export class TailSampling implements SpanProcessor {
  readonly #inner: SpanProcessor;
  readonly #slowMillis: number;
  /** By the ids of spans that have not ended. */
  readonly #live = new Map<string, Held>();
  #requests = 0;

  constructor(inner: SpanProcessor, slowMillis: number) {
    this.#inner = inner;
    this.#slowMillis = slowMillis;
  }

  onStart(span: Span, parent: Context): void {
    if (isSampled(span)) {
      this.#inner.onStart(span, parent);
      return;
    }
    const { spanId } = span.spanContext();
    const above = span.parentSpanContext;
    const held = above && !above.isRemote ? this.#live.get(above.spanId) : this.#begin(spanId);
    if (held) this.#live.set(spanId, held);
  }

  onEnd(span: ReadableSpan): void {
    const { spanId } = span.spanContext();
    const held = this.#live.get(spanId);
    if (!held) {
      if (isSampled(span)) this.#inner.onEnd(span);
      return;
    }
    this.#live.delete(spanId);
    if (held.spans.length < SPANS_HELD) held.spans.push(span);
    if (held.rootId !== spanId) return;
    this.#requests--;
    const reason = this.#reason(span);
    if (!reason) return;
    for (const ended of held.spans) {
      // exporters leave out what is not sampled; and what is measured of the request from now on has a trace that leads to it
      ended.spanContext().traceFlags |= TraceFlags.SAMPLED;
      this.#inner.onEnd(ended === span ? withAttributes(ended, { 'ptp.sampled.as': reason }) : ended);
    }
  }

  forceFlush(): Promise<void> {
    return this.#inner.forceFlush();
  }

  shutdown(): Promise<void> {
    return this.#inner.shutdown();
  }

  #begin(rootId: string): Held | undefined {
    if (this.#requests >= REQUESTS_HELD) return undefined;
    this.#requests++;
    return { rootId, spans: [] };
  }

  #reason({ status, duration: [seconds, nanos] }: ReadableSpan): 'failed' | 'slow' | undefined {
    if (status.code === SpanStatusCode.ERROR) return 'failed';
    return seconds * 1e3 + nanos / 1e6 >= this.#slowMillis ? 'slow' : undefined;
  }
}

function isSampled(span: Pick<ReadableSpan, 'spanContext'>): boolean {
  return (span.spanContext().traceFlags & TraceFlags.SAMPLED) !== 0;
}

function withAttributes(span: ReadableSpan, more: Attributes): ReadableSpan {
  return Object.create(span, { attributes: { value: { ...span.attributes, ...more }, enumerable: true } });
}

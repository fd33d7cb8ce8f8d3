import { randomBytes } from 'node:crypto';
import {
  type Attributes,
  type HrTime,
  ROOT_CONTEXT,
  type SpanContext,
  type SpanKind,
  type SpanStatus,
  SpanStatusCode,
  TraceFlags,
} from '@opentelemetry/api';
import type { ReadableSpan, Span, SpanProcessor } from '@opentelemetry/sdk-trace';

/** Who hears of spans. */
export type SpanObserver = Pick<SpanProcessor, 'onStart' | 'onEnd'>;

/** What all spans of a process have in common. */
export type SpanOrigin = Pick<ReadableSpan, 'resource' | 'instrumentationScope'>;

/** What a span below another one is made of. */
export interface ChildParts {
  readonly name: string;
  readonly above: SpanContext;
  readonly kind: SpanKind;
  readonly attributes: Attributes | undefined;
  /** Unix time, milliseconds. */
  readonly startMillis: number;
}

const UNSET: SpanStatus = { code: SpanStatusCode.UNSET };
const NONE: never[] = [];

/**
 * A span below another one, sampled as that is. It does what the SDK's do for a step at a fraction of the time, since it checks nothing:
 * attributes are numbers, booleans and short words, which no limit is for, and there are neither events nor links.
 */
export class ChildSpan implements Span {
  readonly kind: SpanKind;
  readonly parentSpanContext: SpanContext;
  readonly links = NONE;
  readonly events = NONE;
  readonly droppedAttributesCount = 0;
  readonly droppedEventsCount = 0;
  readonly droppedLinksCount = 0;
  name: string;
  status = UNSET;
  ended = false;
  readonly #origin: SpanOrigin;
  readonly #observer: SpanObserver;
  readonly #context: SpanContext;
  #attributes: Attributes[];
  readonly #startMillis: number;
  #endMillis = 0;

  constructor({ name, above, kind, attributes, startMillis }: ChildParts, origin: SpanOrigin, observer: SpanObserver) {
    this.name = name;
    this.kind = kind;
    this.parentSpanContext = above;
    this.#origin = origin;
    this.#observer = observer;
    // what is below one of another process is only recorded if it is sampled
    const traceFlags = above.isRemote ? TraceFlags.SAMPLED : above.traceFlags;
    this.#context = { traceId: above.traceId, spanId: randomSpanId(), traceFlags };
    this.#attributes = attributes ? [attributes] : [];
    this.#startMillis = startMillis;
    // our processors ask the span for its parent
    observer.onStart(this, ROOT_CONTEXT);
  }

  spanContext(): SpanContext {
    return this.#context;
  }

  isRecording(): boolean {
    return !this.ended;
  }

  /** @param endMillis Unix time, milliseconds */
  end(endMillis: number): void {
    if (this.ended) return;
    this.ended = true;
    this.#endMillis = Math.max(endMillis, this.#startMillis);
    this.#observer.onEnd(this);
  }

  setAttribute(key: string, value: unknown): this {
    return this.setAttributes({ [key]: value });
  }

  setAttributes(attributes: Attributes): this {
    if (!this.ended) this.#attributes.push(attributes);
    return this;
  }

  setStatus(status: SpanStatus): this {
    this.status = status;
    return this;
  }

  updateName(name: string): this {
    this.name = name;
    return this;
  }

  /** Put together when they are read: most spans that the tail rule holds never are. */
  get attributes(): Attributes {
    if (this.#attributes.length > 1) this.#attributes = [Object.assign({}, ...this.#attributes)];
    return this.#attributes[0] ?? {};
  }

  get resource(): SpanOrigin['resource'] {
    return this.#origin.resource;
  }

  get instrumentationScope(): SpanOrigin['instrumentationScope'] {
    return this.#origin.instrumentationScope;
  }

  get startTime(): HrTime {
    return hrTime(this.#startMillis);
  }

  get endTime(): HrTime {
    return hrTime(this.#endMillis);
  }

  get duration(): HrTime {
    return hrTime(this.#endMillis - this.#startMillis);
  }

  addEvent(): this {
    return this;
  }

  addLink(): this {
    return this;
  }

  addLinks(): this {
    return this;
  }

  recordException(): void {}
}

function hrTime(millis: number): HrTime {
  return [Math.trunc(millis / 1000), Math.round((millis % 1000) * 1e6)];
}

const ID_DIGITS = 16;
let random = '';
let taken = 0;

/** Bytes are fetched for many ids at once. */
function randomSpanId(): string {
  if (taken === random.length) {
    random = randomBytes(4096).toString('hex');
    taken = 0;
  }
  taken += ID_DIGITS;
  return random.slice(taken - ID_DIGITS, taken);
}

import {
  type Attributes,
  type Context,
  type Histogram,
  isSpanContextValid,
  type Meter,
  TraceFlags,
  trace,
} from '@opentelemetry/api';

/** An observation that was made inside a sampled trace. */
export interface Exemplar {
  readonly traceId: string;
  readonly spanId: string;
  readonly value: number;
  /** Unix time, seconds. */
  readonly time: number;
}

/**
 * Of each bucket of each series of histograms the newest exemplar, which leads from a slow bucket to a trace. The JavaScript SDK keeps none.
 * The span of an observation is that of the context which `record` is given.
 *
 * https://opentelemetry.io/docs/specs/otel/metrics/sdk/#exemplar
 */
export class Exemplars {
  /** By instrument and attributes; by number of the bucket. */
  readonly #series = new Map<string, Exemplar[]>();

  /** The meter, with histograms that keep exemplars if they are given their buckets' limits, in ascending order. */
  watch(meter: Meter): Meter {
    const createHistogram: Meter['createHistogram'] = (name, options) => {
      const histogram = meter.createHistogram(name, options);
      const limits = options?.advice?.explicitBucketBoundaries;
      return limits ? this.#watched(histogram, name, limits) : histogram;
    };
    return Object.create(meter, { createHistogram: { value: createHistogram } });
  }

  /** @returns by number of the bucket, from 0; none where nothing was observed inside a sampled trace */
  of(name: string, attributes: Attributes): readonly (Exemplar | undefined)[] {
    return this.#series.get(seriesKey(name, attributes)) ?? [];
  }

  #watched<Labels extends Attributes>(
    histogram: Histogram<Labels>,
    name: string,
    limits: readonly number[],
  ): Histogram<Labels> {
    return {
      record: (value, attributes, context) => {
        histogram.record(value, attributes, context);
        const span = context && sampledSpan(context);
        if (!span) return;
        const { traceId, spanId } = span;
        const key = seriesKey(name, attributes ?? {});
        const buckets = this.#series.get(key) ?? [];
        const place = limits.findIndex((limit) => value <= limit);
        buckets[place < 0 ? limits.length : place] = { traceId, spanId, value, time: Date.now() / 1000 };
        this.#series.set(key, buckets);
      },
    };
  }
}

function sampledSpan(context: Context) {
  const span = trace.getSpanContext(context);
  return span && span.traceFlags & TraceFlags.SAMPLED && isSpanContextValid(span) ? span : undefined;
}

function seriesKey(name: string, attributes: Attributes): string {
  return JSON.stringify([name, ...Object.entries(attributes).sort()]);
}

import { type Attributes, type Histogram, type Meter, TraceFlags, trace } from '@opentelemetry/api';

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
  /** By instrument, by attributes, by number of the bucket. */
  readonly #series = new Map<string, Map<string, Exemplar[]>>();

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
    return this.#series.get(name)?.get(keyOf(attributes)) ?? [];
  }

  #watched<Labels extends Attributes>(
    histogram: Histogram<Labels>,
    name: string,
    limits: readonly number[],
  ): Histogram<Labels> {
    const series = this.#series.get(name) ?? new Map<string, Exemplar[]>();
    this.#series.set(name, series);
    return {
      record: (value, attributes, context) => {
        histogram.record(value, attributes, context);
        const span = context && trace.getSpanContext(context);
        if (!span || !(span.traceFlags & TraceFlags.SAMPLED)) return;
        const { traceId, spanId } = span;
        const key = attributes ? keyOf(attributes) : '';
        const buckets = series.get(key) ?? [];
        if (buckets.length === 0) series.set(key, buckets);
        const place = limits.findIndex((limit) => value <= limit);
        buckets[place < 0 ? limits.length : place] = { traceId, spanId, value, time: Date.now() / 1000 };
      },
    };
  }
}

function keyOf(attributes: Attributes): string {
  const names = Object.keys(attributes);
  if (names.length > 1) names.sort();
  let key = '';
  for (const name of names) key += `${name}\0${attributes[name]}\0`;
  return key;
}

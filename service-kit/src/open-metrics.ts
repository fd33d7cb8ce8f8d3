import type { Attributes, AttributeValue } from '@opentelemetry/api';
import { DataPointType, type MetricData, type ResourceMetrics } from '@opentelemetry/sdk-metrics';
import type { Exemplar, Exemplars } from './exemplars.ts';

export const OPEN_METRICS_TYPE = 'application/openmetrics-text; version=1.0.0; charset=utf-8';

const UNITS: Readonly<Record<string, string>> = { s: 'seconds', By: 'bytes' };

/**
 * A metric's name with its unit, where there is one that Prometheus knows.
 *
 * https://opentelemetry.io/docs/specs/otel/compatibility/prometheus_and_openmetrics/#metric-metadata-1
 */
export function withUnit({ name, unit }: MetricData['descriptor']): { name: string; unit: string } {
  const known = UNITS[unit];
  return known ? { name: `${name}_${known}`, unit: known } : { name, unit: '' };
}

/**
 * Metrics with their exemplars in OpenMetrics' text format, which the SDK does not write.
 *
 * https://prometheus.io/docs/specs/om/open_metrics_spec/
 */
export function openMetrics({ resource, scopeMetrics }: ResourceMetrics, exemplars: Exemplars): string {
  const lines = [
    '# TYPE target info',
    '# HELP target Target metadata',
    sample('target_info', resource.attributes, 1),
    ...scopeMetrics.flatMap(({ metrics }) => metrics).flatMap((metric) => family(metric, exemplars)),
    '# EOF',
  ];
  return `${lines.join('\n')}\n`;
}

function family(metric: MetricData, exemplars: Exemplars): string[] {
  const named = withUnit(metric.descriptor);
  const name = identifier(named.name);
  return [
    `# TYPE ${name} ${typeOf(metric)}`,
    ...(named.unit ? [`# UNIT ${name} ${named.unit}`] : []),
    `# HELP ${name} ${escaped(metric.descriptor.description)}`,
    ...samples(name, metric, exemplars),
  ];
}

function typeOf(metric: MetricData): string {
  if (metric.dataPointType === DataPointType.HISTOGRAM) return 'histogram';
  return metric.dataPointType === DataPointType.SUM && metric.isMonotonic ? 'counter' : 'gauge';
}

function samples(name: string, metric: MetricData, exemplars: Exemplars): string[] {
  switch (metric.dataPointType) {
    case DataPointType.SUM:
    case DataPointType.GAUGE: {
      const full = typeOf(metric) === 'counter' ? `${name}_total` : name;
      return metric.dataPoints.map(({ attributes, value }) => sample(full, attributes, value));
    }
    case DataPointType.HISTOGRAM:
      return metric.dataPoints.flatMap(({ attributes, value: { buckets, count, sum } }) => {
        const known = exemplars.of(metric.descriptor.name, attributes);
        let below = 0;
        const lines = buckets.counts.map((inBucket, i) => {
          below += inBucket;
          const labels = { ...attributes, le: float(buckets.boundaries[i] ?? Number.POSITIVE_INFINITY) };
          return sample(`${name}_bucket`, labels, below) + exemplar(known[i]);
        });
        lines.push(sample(`${name}_count`, attributes, count));
        if (sum !== undefined) lines.push(sample(`${name}_sum`, attributes, sum));
        return lines;
      });
    default:
      return [];
  }
}

function sample(name: string, attributes: Attributes, value: number): string {
  const labels = Object.entries(attributes).map(([key, given]) => `${identifier(key)}="${escaped(text(given))}"`);
  return `${name}${labels.length > 0 ? `{${labels.join(',')}}` : ''} ${number(value)}`;
}

function exemplar(known: Exemplar | undefined): string {
  if (!known) return '';
  const { traceId, spanId, value, time } = known;
  return ` # {trace_id="${traceId}",span_id="${spanId}"} ${number(value)} ${time}`;
}

/** As the SDK makes names of metrics and labels for Prometheus. */
function identifier(name: string): string {
  return name.replace(/[^a-z0-9_]/gi, '_').replace(/_{2,}/g, '_');
}

function text(value: AttributeValue | undefined): string {
  return typeof value === 'string' ? value : (JSON.stringify(value) ?? '');
}

function escaped(value: string): string {
  return value.replace(/[\\"]/g, '\\$&').replace(/\n/g, '\\n');
}

function number(value: number): string {
  if (Math.abs(value) === Number.POSITIVE_INFINITY) return value > 0 ? '+Inf' : '-Inf';
  return String(value);
}

/** A bucket's limit as the format wants it: 1.0, not 1. */
function float(value: number): string {
  return Number.isInteger(value) ? value.toFixed(1) : number(value);
}

import type { Meter } from '@opentelemetry/api';
import { PrometheusExporter, PrometheusSerializer } from '@opentelemetry/exporter-prometheus';
import { defaultResource, resourceFromAttributes } from '@opentelemetry/resources';
import {
  MeterProvider,
  type MetricReader,
  PeriodicExportingMetricReader,
  type ResourceMetrics,
} from '@opentelemetry/sdk-metrics';
import { PtpError, publicMessage } from '@ptp/protocol/errors';
import manifest from '../package.json' with { type: 'json' };
import { prefersOpenMetrics } from './accept.ts';
import { Exemplars } from './exemplars.ts';
import { OPEN_METRICS_TYPE, openMetrics, withUnit } from './open-metrics.ts';
import type { Address } from './settings.ts';
import { sdkDisabled } from './tracing.ts';

/** Running metrics. */
export interface Metrics {
  /** Its histograms keep exemplars of what they are given with the context of a sampled span. */
  readonly meter: Meter;
  /** All metrics for a scraper, by its Accept header: with exemplars in OpenMetrics, else in Prometheus' older text format. */
  exposition(accept?: string): Promise<Exposition>;
  stop(): Promise<void>;
}

/** What a scrape is answered with. */
export interface Exposition {
  /** The content type. */
  readonly type: string;
  readonly text: string;
}

/** Bucket limits in seconds that tell steps of a quarter of a millisecond from those of half a one, and a minute from two. */
export const SECONDS = [
  0.0001, 0.00025, 0.0005, 0.00075, 0.001, 0.0015, 0.002, 0.003, 0.004, 0.006, 0.008, 0.012, 0.016, 0.024, 0.032, 0.048,
  0.064, 0.1, 0.15, 0.25, 0.5, 1, 2, 4, 8, 16, 32, 64, 128,
];

/**
 * Starts metrics: they are always counted, and read by whoever asks (`expose`). With OTEL_METRICS_EXPORTER=otlp, or
 * OTEL_EXPORTER_OTLP_METRICS_ENDPOINT, they are also sent by OTLP, over HTTP or, with OTEL_EXPORTER_OTLP_PROTOCOL=grpc, gRPC; the exporter reads
 * the other variables itself.
 *
 * @param service `service.name` unless OTEL_SERVICE_NAME is set, for example `ptp-verifier`
 * @param model the pair's id, told by `ptp.build.info`
 */
export async function startMetrics(service: string, model: string): Promise<Metrics> {
  const exporter = new PrometheusExporter({ preventServerStart: true });
  const serializer = new PrometheusSerializer(undefined, false, undefined, false, true);
  const name = process.env.OTEL_SERVICE_NAME || service;
  const { version } = manifest;
  const resource = defaultResource().merge(
    resourceFromAttributes({ 'service.name': name, 'service.namespace': 'ptp', 'service.version': version }),
  );
  const provider = new MeterProvider({ resource, readers: [exporter, ...(await otlpReaders())] });
  const exemplars = new Exemplars();
  const meter = exemplars.watch(provider.getMeter('ptp-server', version));
  meter
    .createObservableGauge('ptp.build.info', { description: 'Always 1; the labels tell what runs.' })
    .addCallback((result) => result.observe(1, { version, model, node: process.versions.node }));
  return {
    meter,
    async exposition(accept) {
      const { resourceMetrics } = await exporter.collect();
      return prefersOpenMetrics(accept)
        ? { type: OPEN_METRICS_TYPE, text: openMetrics(resourceMetrics, exemplars) }
        : { type: TEXT_TYPE, text: serializer.serialize(withUnits(resourceMetrics)) };
    },
    stop: () => provider.shutdown({ timeoutMillis: 3000 }).catch(() => {}),
  };
}

const TEXT_TYPE = 'text/plain; version=0.0.4; charset=utf-8';

/** The serializer leaves units out of names, and puts them on lines of their own, which this format does not have: puts them there. */
function withUnits(collected: ResourceMetrics): ResourceMetrics {
  const scopeMetrics = collected.scopeMetrics.map(({ scope, metrics }) => ({
    scope,
    metrics: metrics.map((metric) => ({
      ...metric,
      descriptor: { ...metric.descriptor, name: withUnit(metric.descriptor).name, unit: '' },
    })),
  }));
  return { ...collected, scopeMetrics };
}

async function otlpReaders(): Promise<MetricReader[]> {
  const { env } = process;
  if (sdkDisabled(env)) return [];
  if (env.OTEL_METRICS_EXPORTER?.trim() !== 'otlp' && !env.OTEL_EXPORTER_OTLP_METRICS_ENDPOINT) return [];
  const protocol = env.OTEL_EXPORTER_OTLP_METRICS_PROTOCOL || env.OTEL_EXPORTER_OTLP_PROTOCOL;
  const { OTLPMetricExporter } =
    protocol === 'grpc'
      ? await import('@opentelemetry/exporter-metrics-otlp-grpc')
      : await import('@opentelemetry/exporter-metrics-otlp-proto');
  const interval = Number(env.OTEL_METRIC_EXPORT_INTERVAL);
  return [
    new PeriodicExportingMetricReader({
      exporter: new OTLPMetricExporter(),
      ...(interval > 0 && { exportIntervalMillis: interval, exportTimeoutMillis: Math.min(interval, 30_000) }),
    }),
  ];
}

/**
 * Serves metrics at `/metrics` of an address.
 *
 * @returns the port in use, and what stops it
 * @throws PtpError `failed_precondition` if the address cannot be had
 */
export async function serveMetrics(metrics: Metrics, address: Address, setting: string) {
  const { createServer } = await import('node:http');
  const server = createServer(async (request, response) => {
    if (request.method !== 'GET' || request.url?.split('?')[0] !== '/metrics') {
      response.writeHead(404).end();
      return;
    }
    try {
      const { type, text } = await metrics.exposition(request.headers.accept);
      response.writeHead(200, { 'content-type': type }).end(text);
    } catch (error) {
      response.writeHead(500, { 'content-type': 'text/plain' }).end(`metrics cannot be read: ${publicMessage(error)}`);
    }
  });
  const where = 'path' in address ? { path: address.path } : { host: address.host, port: address.port };
  await new Promise<void>((resolve, reject) => {
    server.once('error', (cause) => {
      const message = `${address.target} cannot be had for metrics: set ${setting} to another one`;
      reject(new PtpError('failed_precondition', message, { field: setting, cause }));
    });
    server.listen(where, resolve);
  });
  const bound = server.address();
  const stop = () =>
    new Promise<void>((resolve) => {
      server.close(() => resolve());
      server.closeAllConnections();
    });
  return { port: bound !== null && typeof bound === 'object' ? bound.port : undefined, stop };
}

import { createServer } from 'node:http';
import { PtpError, publicMessage } from '@ptp/protocol/errors';
import { Counter, Gauge, Registry, type RegistryContentType } from 'prom-client';
import manifest from '../package.json' with { type: 'json' };
import type { Address } from './settings.ts';

/** Metrics of one process. Create each metric with prom-client and `{ registers: [registry] }`. */
export interface Metrics {
  readonly registry: Registry;
  /**
   * Returns all metrics: as OpenMetrics with exemplars if the scraper's Accept header allows it, otherwise in
   * Prometheus's text format.
   */
  exposition(accept?: string): Promise<Exposition>;
  stop(): void;
}

/** The body of a scrape's response. */
export interface Exposition {
  /** Content type. */
  readonly type: string;
  readonly text: string;
}

/**
 * Upper limits of the histogram buckets in seconds, fine enough to distinguish 0.25 ms from 0.5 ms and wide enough for
 * 2 minutes.
 */
export const SECONDS = [
  0.0001, 0.00025, 0.0005, 0.00075, 0.001, 0.0015, 0.002, 0.003, 0.004, 0.006, 0.008, 0.012, 0.016, 0.024, 0.032, 0.048,
  0.064, 0.1, 0.15, 0.25, 0.5, 1, 2, 4, 8, 16, 32, 64, 128,
];

/**
 * Creates the registry of a process, with `ptp_build_info` and `target_info`.
 *
 * @param service value of `service_name` unless OTEL_SERVICE_NAME is set, for example `ptp-verifier`
 * @param model id of the model, a label of `ptp_build_info`
 */
export function startMetrics(service: string, model: string): Metrics {
  const { version } = manifest;
  const registry = new Registry();
  withType(registry, OPEN_METRICS_TYPE); // prom-client allows exemplars only in an OpenMetrics registry
  const info = (name: string, help: string, labels: Record<string, string>) =>
    new Gauge({ name, help, labelNames: Object.keys(labels), registers: [registry] }).set(labels, 1);
  info('target_info', 'Target metadata', {
    service_name: process.env.OTEL_SERVICE_NAME || service,
    service_namespace: 'ptp',
    service_version: version,
  });
  info('ptp_build_info', 'Always 1. The labels give the version, the model and the Node.js version.', {
    version,
    model,
    node: process.versions.node,
  });
  return {
    registry,
    exposition: (accept = '') =>
      expose(registry, /application\/openmetrics-text/i.test(accept) ? OPEN_METRICS_TYPE : TEXT_TYPE),
    stop: () => registry.clear(),
  };
}

const OPEN_METRICS_TYPE = Registry.OPENMETRICS_CONTENT_TYPE;
const TEXT_TYPE = Registry.PROMETHEUS_CONTENT_TYPE;

async function expose(registry: Registry, type: RegistryContentType): Promise<Exposition> {
  // Each scrape has its own registry, because the content type must not change while another scrape is being written.
  const scrape = withType(Registry.merge([registry]), type);
  for (const metric of scrape.getMetricsAsArray()) {
    // Writing OpenMetrics removes the suffix from the metric object itself.
    if (metric instanceof Counter && !metric.name.endsWith('_total')) metric.name += '_total';
  }
  const text = await scrape.metrics();
  return { type, text: type === OPEN_METRICS_TYPE ? conform(text) : text };
}

function withType(registry: Registry<RegistryContentType>, type: RegistryContentType): Registry<RegistryContentType> {
  registry.setContentType(type);
  return registry;
}

/**
 * Adds the parts of the OpenMetrics specification that prom-client leaves out: units, and bucket limits written as
 * floats.
 */
function conform(text: string): string {
  return text
    .replace(/^# TYPE (\w+_(seconds|bytes)) .*$/gm, '$&\n# UNIT $1 $2')
    .replace(/(_bucket\{le="\d+)"/g, '$1.0"');
}

/**
 * Serves metrics at `/metrics` of an address, and for probes `/healthz` (200) and `/readyz` (200 or 503). Probes need no
 * certificate here, and no process of their own.
 *
 * @param isReady function that returns true while the service accepts calls
 * @returns the port in use, and a function that stops the server
 * @throws PtpError `failed_precondition` if the address cannot be used
 */
export async function serveMetrics(
  metrics: Pick<Metrics, 'exposition'>,
  address: Address,
  setting: string,
  isReady: () => boolean = () => true,
) {
  const server = createServer(async (request, response) => {
    const path = request.method === 'GET' ? request.url?.split('?')[0] : undefined;
    if (path === '/healthz' || path === '/readyz') {
      response.writeHead(path === '/healthz' || isReady() ? 200 : 503).end();
      return;
    }
    if (path !== '/metrics') {
      response.writeHead(404).end();
      return;
    }
    try {
      const { type, text } = await metrics.exposition(request.headers.accept);
      response.writeHead(200, { 'content-type': type }).end(text);
    } catch (error) {
      response.writeHead(500, { 'content-type': 'text/plain' }).end(`cannot read metrics: ${publicMessage(error)}`);
    }
  });
  const where = 'path' in address ? { path: address.path } : { host: address.host, port: address.port };
  await new Promise<void>((resolve, reject) => {
    server.once('error', (cause) => {
      const message = `cannot serve metrics at ${address.target}: set ${setting} to another address`;
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

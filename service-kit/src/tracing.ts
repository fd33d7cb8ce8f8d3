import { setTimeout as sleep } from 'node:timers/promises';
import { context, diag, propagation, trace } from '@opentelemetry/api';
import type { SpanProcessor } from '@opentelemetry/sdk-trace';
import { setTracer } from './spans.ts';

/** Handle of the process's tracing. */
export interface Tracing {
  /** True if spans are recorded. */
  readonly enabled: boolean;
  /** Sends the recorded spans, taking at most 3 seconds, and stops tracing. */
  stop(): Promise<void>;
}

/**
 * Share of new traces that are sampled unless OTEL_TRACES_SAMPLER or OTEL_TRACES_SAMPLER_ARG is set. A request with a
 * `traceparent` keeps its caller's decision.
 */
export const DEFAULT_RATIO = 0.01;
/** Maximum time in milliseconds that an unreachable collector may delay the end of the process. */
const flushMs = 3_000;

/**
 * Starts the OpenTelemetry SDK if its standard variables name an exporter: OTEL_TRACES_EXPORTER (other than `none`),
 * OTEL_EXPORTER_OTLP_ENDPOINT, OTEL_EXPORTER_OTLP_TRACES_ENDPOINT or OTEL_CONFIG_FILE. OTEL_SDK_DISABLED=true takes
 * precedence. Without an exporter, the SDK is not loaded.
 *
 * https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/
 *
 * @param service `service.name` of the spans unless OTEL_SERVICE_NAME is set, for example `ptp-verifier`
 * @param spanProcessors processors that replace the configured exporter; for tests
 */
export async function startTracing(service: string, spanProcessors?: SpanProcessor[]): Promise<Tracing> {
  if (!spanProcessors && !hasExporter(process.env)) return { enabled: false, stop: async () => {} };
  const [
    { startNodeSdk },
    { defaultResource, resourceFromAttributes },
    { ParentBasedSampler, TraceIdRatioBasedSampler },
  ] = await Promise.all([
    import('@opentelemetry/sdk-node'),
    import('@opentelemetry/resources'),
    import('@opentelemetry/sdk-trace'),
  ]);
  const names = resourceFromAttributes({ 'service.name': service, 'service.namespace': 'ptp' });
  const { OTEL_TRACES_SAMPLER: named, OTEL_TRACES_SAMPLER_ARG: ratio } = process.env;
  const root = new TraceIdRatioBasedSampler(Number(ratio || DEFAULT_RATIO));
  const sdk = startNodeSdk({
    baseResource: defaultResource().merge(names), // The lowest priority, so the standard variables override it.
    logRecordProcessors: [],
    metricReaders: [],
    ...(!named && { sampler: new ParentBasedSampler({ root }) }),
    ...(spanProcessors && { spanProcessors }),
  });
  setTracer(trace.getTracer('ptp-server'));
  return {
    enabled: true,
    async stop() {
      setTracer(undefined);
      const timer = new AbortController();
      const flushed = sdk.shutdown().catch(() => {});
      await Promise.race([flushed, sleep(flushMs, undefined, { signal: timer.signal }).catch(() => {})]);
      timer.abort();
      for (const api of [trace, context, propagation, diag]) api.disable();
    },
  };
}

function hasExporter(env: NodeJS.ProcessEnv): boolean {
  if (env.OTEL_SDK_DISABLED?.trim().toLowerCase() === 'true') return false;
  const exporter = env.OTEL_TRACES_EXPORTER?.trim();
  if (exporter) return exporter !== 'none';
  return Boolean(env.OTEL_EXPORTER_OTLP_ENDPOINT || env.OTEL_EXPORTER_OTLP_TRACES_ENDPOINT || env.OTEL_CONFIG_FILE);
}

import { setTimeout as sleep } from 'node:timers/promises';
import { context, diag, propagation, trace } from '@opentelemetry/api';
import type { SpanProcessor } from '@opentelemetry/sdk-trace';
import { setTracer } from './spans.ts';

/** Running tracing. */
export interface Tracing {
  /** Whether spans are recorded. */
  readonly enabled: boolean;
  /** Sends what is recorded, for 3 seconds at most, and stops. */
  stop(): Promise<void>;
}

/** How long an unreachable collector may delay the end of the process. */
const flushMs = 3_000;

/**
 * Starts OpenTelemetry tracing if the standard variables ask for it: OTEL_TRACES_EXPORTER (`otlp`, `console`; `none` for
 * no), OTEL_EXPORTER_OTLP_ENDPOINT, OTEL_EXPORTER_OTLP_TRACES_ENDPOINT or OTEL_CONFIG_FILE; OTEL_SDK_DISABLED=true wins.
 * The SDK reads the others by itself (OTEL_EXPORTER_OTLP_PROTOCOL `http/protobuf` or `grpc`, OTEL_TRACES_SAMPLER,
 * OTEL_SERVICE_NAME, ...). Unless it is asked for, the SDK isn't even loaded.
 *
 * https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/
 *
 * @param service `service.name` of the spans unless OTEL_SERVICE_NAME is set, for example `ptp-verifier`
 * @param processors instead of what the variables ask for; for tests
 * @param slowMillis from which a request is exported whatever the sampler says of it, as is a failed one (tail-sampling.ts); 0 for no such rule
 */
export async function startTracing(
  service: string,
  processors?: readonly SpanProcessor[],
  slowMillis = 0,
): Promise<Tracing> {
  if (!processors && !isAsked(process.env)) return { enabled: false, stop: async () => {} };
  const [{ startNodeSdk }, { defaultResource, resourceFromAttributes }] = await Promise.all([
    import('@opentelemetry/sdk-node'),
    import('@opentelemetry/resources'),
  ]);
  const tail = slowMillis > 0 && (await import('./tail-options.ts')).tailOptions(slowMillis, process.env, processors);
  const sdk = startNodeSdk({
    // the lowest priority, so that the standard variables win
    baseResource: defaultResource().merge(
      resourceFromAttributes({ 'service.name': service, 'service.namespace': 'ptp' }),
    ),
    logRecordProcessors: [],
    metricReaders: [],
    ...(processors && { spanProcessors: [...processors] }),
    ...(await tail),
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

/** Whether OTEL_SDK_DISABLED turns OpenTelemetry off, whatever else is set. */
export function sdkDisabled(env: NodeJS.ProcessEnv): boolean {
  return env.OTEL_SDK_DISABLED?.trim().toLowerCase() === 'true';
}

function isAsked(env: NodeJS.ProcessEnv): boolean {
  if (sdkDisabled(env)) return false;
  const exporter = env.OTEL_TRACES_EXPORTER?.trim();
  if (exporter) return exporter !== 'none';
  return Boolean(env.OTEL_EXPORTER_OTLP_ENDPOINT || env.OTEL_EXPORTER_OTLP_TRACES_ENDPOINT || env.OTEL_CONFIG_FILE);
}

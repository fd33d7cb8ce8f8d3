import { setTimeout as sleep } from 'node:timers/promises';
import { context, diag, propagation, trace } from '@opentelemetry/api';
import type { SpanProcessor } from '@opentelemetry/sdk-trace';
import type { SpanObserver } from './child-span.ts';
import { setTarget } from './spans.ts';
import type { Sampling } from './trace-sampling.ts';

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
  const { sampling, spanProcessors } = await optionsFrom(slowMillis, process.env, processors);
  const sdk = startNodeSdk({
    // the lowest priority, so that the standard variables win
    baseResource: defaultResource().merge(
      resourceFromAttributes({ 'service.name': service, 'service.namespace': 'ptp' }),
    ),
    logRecordProcessors: [],
    metricReaders: [],
    ...(sampling && { sampler: sampling.sampler }),
    ...(spanProcessors && { spanProcessors }),
  });
  setTarget({
    tracer: trace.getTracer('ptp-server'),
    ...(sampling &&
      spanProcessors && { children: { samples: sampling.samples, observer: observerOf(spanProcessors) } }),
  });
  return {
    enabled: true,
    async stop() {
      setTarget(undefined);
      const timer = new AbortController();
      const flushed = sdk.shutdown().catch(() => {});
      await Promise.race([flushed, sleep(flushMs, undefined, { signal: timer.signal }).catch(() => {})]);
      timer.abort();
      for (const api of [trace, context, propagation, diag]) api.disable();
    },
  };
}

/**
 * What the SDK is to have from us instead of reading it from the variables itself: all that is usual, so that spans below others and the
 * messages to the collector can be ours, which take a fraction of the time. Nothing for what only the SDK knows.
 */
async function optionsFrom(
  slowMillis: number,
  env: NodeJS.ProcessEnv,
  processors: readonly SpanProcessor[] | undefined,
): Promise<{ sampling?: Sampling; spanProcessors?: SpanProcessor[] }> {
  if (slowMillis > 0) return (await import('./tail-options.ts')).tailOptions(slowMillis, env, processors);
  if (!processors && (env.OTEL_CONFIG_FILE || (env.OTEL_TRACES_EXPORTER?.trim() || 'otlp') !== 'otlp')) return {};
  const sampling = (await import('./trace-sampling.ts')).samplingFrom(env);
  if (processors) return { ...(sampling && { sampling }), spanProcessors: [...processors] };
  // what it cannot be made of is for the SDK to tell
  const otlp = sampling && (await (await import('./exporting.ts')).otlpProcessor(env).catch(() => undefined));
  return otlp ? { sampling, spanProcessors: [otlp] } : {};
}

function observerOf(processors: readonly SpanProcessor[]): SpanObserver {
  const [only] = processors;
  if (only && processors.length === 1) return only;
  return {
    onStart: (span, parent) => processors.forEach((processor) => void processor.onStart(span, parent)),
    onEnd: (span) => processors.forEach((processor) => void processor.onEnd(span)),
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

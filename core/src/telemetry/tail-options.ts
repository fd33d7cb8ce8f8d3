import {
  AlwaysOffSampler,
  AlwaysOnSampler,
  BatchSpanProcessor,
  ConsoleSpanExporter,
  createAlwaysRecordSampler,
  ParentBasedSampler,
  type Sampler,
  type SpanProcessor,
  TraceIdRatioBasedSampler,
} from '@opentelemetry/sdk-trace';
import { PtpError } from '../errors.ts';
import { TailSampling } from './tail-sampling.ts';

/**
 * The SDK's options for a process that exports slow and failed requests always. The SDK takes either its own reading of the standard
 * variables or a sampler and processors of ours, so that those of them that are for sampler, exporter and batches are read here.
 *
 * @param processors instead of what the variables ask for; for tests
 * @throws PtpError `failed_precondition` for variables that this cannot be had with
 */
export async function tailOptions(
  slowMillis: number,
  env: NodeJS.ProcessEnv,
  processors?: readonly SpanProcessor[],
): Promise<{ sampler: Sampler; spanProcessors: SpanProcessor[] }> {
  if (env.OTEL_CONFIG_FILE) throw refused('OTEL_CONFIG_FILE', 'unset', env.OTEL_CONFIG_FILE);
  const exporting = processors ?? (await processorsFrom(env));
  return {
    sampler: createAlwaysRecordSampler(samplerFrom(env)),
    spanProcessors: exporting.map((processor) => new TailSampling(processor, slowMillis)),
  };
}

function samplerFrom(env: NodeJS.ProcessEnv): Sampler {
  const name = env.OTEL_TRACES_SAMPLER || 'parentbased_always_on';
  const ratio = () => {
    const given = Number(env.OTEL_TRACES_SAMPLER_ARG || 1);
    if (given >= 0 && given <= 1) return new TraceIdRatioBasedSampler(given);
    throw refused('OTEL_TRACES_SAMPLER_ARG', 'a number in [0, 1]', env.OTEL_TRACES_SAMPLER_ARG);
  };
  const roots: Readonly<Record<string, () => Sampler>> = {
    always_on: () => new AlwaysOnSampler(),
    always_off: () => new AlwaysOffSampler(),
    traceidratio: ratio,
  };
  const root = roots[name.replace(/^parentbased_/, '')]?.();
  if (!root)
    throw refused('OTEL_TRACES_SAMPLER', `one of ${Object.keys(roots).join(', ')}, or parentbased_ with it`, name);
  return name.startsWith('parentbased_') ? new ParentBasedSampler({ root }) : root;
}

async function processorsFrom(env: NodeJS.ProcessEnv): Promise<SpanProcessor[]> {
  const exporter = await exporterFrom(env);
  const number = (name: string) => (env[name] ? Number(env[name]) : undefined);
  const sizes = {
    maxQueueSize: number('OTEL_BSP_MAX_QUEUE_SIZE'),
    scheduledDelayMillis: number('OTEL_BSP_SCHEDULE_DELAY'),
    exportTimeoutMillis: number('OTEL_BSP_EXPORT_TIMEOUT'),
    maxExportBatchSize: number('OTEL_BSP_MAX_EXPORT_BATCH_SIZE'),
  };
  const given = Object.fromEntries(Object.entries(sizes).filter(([, size]) => size !== undefined && size >= 0));
  return [new BatchSpanProcessor({ exporter, ...given })];
}

async function exporterFrom(env: NodeJS.ProcessEnv) {
  const name = env.OTEL_TRACES_EXPORTER?.trim() || 'otlp';
  if (name === 'console') return new ConsoleSpanExporter();
  if (name !== 'otlp') throw refused('OTEL_TRACES_EXPORTER', 'otlp or console', name);
  const protocol = env.OTEL_EXPORTER_OTLP_TRACES_PROTOCOL || env.OTEL_EXPORTER_OTLP_PROTOCOL || 'http/protobuf';
  switch (protocol.trim()) {
    case 'grpc':
      return new (await import('@opentelemetry/exporter-trace-otlp-grpc')).OTLPTraceExporter();
    case 'http/protobuf':
      return new (await import('@opentelemetry/exporter-trace-otlp-proto')).OTLPTraceExporter();
    default:
      throw refused('OTEL_EXPORTER_OTLP_PROTOCOL', 'grpc or http/protobuf', protocol);
  }
}

function refused(field: string, allowed: string, got: string | undefined): PtpError {
  const message = `\`${field}\` must be ${allowed} where PTP_TRACE_SLOW_MILLIS is set, got ${JSON.stringify(got)}`;
  return new PtpError('failed_precondition', message, { field });
}

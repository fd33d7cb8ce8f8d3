import { ConsoleSpanExporter, createAlwaysRecordSampler, type SpanProcessor } from '@opentelemetry/sdk-trace';
import { PtpError } from '@ptp/protocol/errors';
import { batches, otlpProcessor, protocolOf } from './exporting.ts';
import { TailSampling } from './tail-sampling.ts';
import { SAMPLERS, type Sampling, samplingFrom } from './trace-sampling.ts';

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
): Promise<{ sampling: Sampling; spanProcessors: SpanProcessor[] }> {
  if (env.OTEL_CONFIG_FILE) throw refused('OTEL_CONFIG_FILE', 'unset', env.OTEL_CONFIG_FILE);
  const exporting = processors ?? (await processorsFrom(env));
  const sampling = samplingFrom(env) ?? refuseSampler(env);
  return {
    sampling: { ...sampling, sampler: createAlwaysRecordSampler(sampling.sampler) },
    spanProcessors: exporting.map((processor) => new TailSampling(processor, slowMillis)),
  };
}

async function processorsFrom(env: NodeJS.ProcessEnv): Promise<SpanProcessor[]> {
  const exporter = env.OTEL_TRACES_EXPORTER?.trim();
  if (exporter === 'console') return [batches(new ConsoleSpanExporter(), env)];
  if (exporter && exporter !== 'otlp') throw refused('OTEL_TRACES_EXPORTER', 'otlp or console', exporter);
  const processor = await otlpProcessor(env);
  if (!processor) throw refused('OTEL_EXPORTER_OTLP_PROTOCOL', 'grpc or http/protobuf', protocolOf(env));
  return [processor];
}

function refuseSampler({ OTEL_TRACES_SAMPLER: name = '', OTEL_TRACES_SAMPLER_ARG: ratio }: NodeJS.ProcessEnv): never {
  const isKnown = SAMPLERS.some((known) => name.replace(/^parentbased_/, '') === known);
  if (isKnown) throw refused('OTEL_TRACES_SAMPLER_ARG', 'a number in [0, 1]', ratio);
  throw refused('OTEL_TRACES_SAMPLER', `one of ${SAMPLERS.join(', ')}, or parentbased_ with it`, name);
}

function refused(field: string, allowed: string, got: string | undefined): PtpError {
  const message = `\`${field}\` must be ${allowed} where PTP_TRACE_SLOW_MILLIS is set, got ${JSON.stringify(got)}`;
  return new PtpError('failed_precondition', message, { field });
}

import { DiagConsoleLogger, DiagLogLevel, diag } from '@opentelemetry/api';
import { OTLPExporterBase } from '@opentelemetry/otlp-exporter-base';
import { TraceExporterMetricsHelper } from '@opentelemetry/otlp-transformer';
import { BatchSpanProcessor, type ReadableSpan, type SpanExporter, type SpanProcessor } from '@opentelemetry/sdk-trace';
import { traceSerializer } from './otlp.ts';

/** By the standard variables, as the SDK reads them. */
export function protocolOf(env: NodeJS.ProcessEnv): string {
  return (env.OTEL_EXPORTER_OTLP_TRACES_PROTOCOL || env.OTEL_EXPORTER_OTLP_PROTOCOL || 'http/protobuf').trim();
}

/**
 * What sends spans by OTLP as the standard variables say; undefined for a protocol that only the SDK speaks.
 *
 * @throws for variables that no exporter can be made of
 */
export async function otlpProcessor(env: NodeJS.ProcessEnv): Promise<SpanProcessor | undefined> {
  const level = DiagLogLevel[env.OTEL_LOG_LEVEL?.toUpperCase() as keyof typeof DiagLogLevel] ?? DiagLogLevel.INFO;
  // who warns of a variable is not heard before the SDK has been started
  diag.setLogger(new DiagConsoleLogger(), level);
  try {
    const exporter = await otlpExporter(protocolOf(env));
    return exporter && batches(exporter, env);
  } finally {
    diag.disable();
  }
}

/** Spans in batches of the sizes that the standard variables say. */
export function batches(exporter: SpanExporter, env: NodeJS.ProcessEnv): SpanProcessor {
  const number = (name: string) => (env[name] ? Number(env[name]) : undefined);
  const sizes = {
    maxQueueSize: number('OTEL_BSP_MAX_QUEUE_SIZE'),
    scheduledDelayMillis: number('OTEL_BSP_SCHEDULE_DELAY'),
    exportTimeoutMillis: number('OTEL_BSP_EXPORT_TIMEOUT'),
    maxExportBatchSize: number('OTEL_BSP_MAX_EXPORT_BATCH_SIZE'),
  };
  const given = Object.fromEntries(Object.entries(sizes).filter(([, size]) => size !== undefined && size >= 0));
  return new BatchSpanProcessor({ exporter, ...given });
}

/** The SDK's exporters, with a serializer of ours. They read the other variables themselves. */
async function otlpExporter(protocol: string): Promise<SpanExporter | undefined> {
  switch (protocol) {
    case 'grpc': {
      const { convertLegacyOtlpGrpcOptions, createOtlpGrpcExportDelegate } = await import(
        '@opentelemetry/otlp-grpc-exporter-base'
      );
      const options = convertLegacyOtlpGrpcOptions({}, 'TRACES');
      const [name, path] = ['TraceExportService', '/opentelemetry.proto.collector.trace.v1.TraceService/Export'];
      const told = ['otlp_grpc_span_exporter', TraceExporterMetricsHelper, undefined] as const;
      return new OTLPExporterBase<ReadableSpan[]>(
        createOtlpGrpcExportDelegate(options, traceSerializer, ...told, name, path),
      );
    }
    case 'http/protobuf': {
      const { convertLegacyHttpOptions, createOtlpHttpExportDelegate } = await import(
        '@opentelemetry/otlp-exporter-base/node-http'
      );
      const type = { 'Content-Type': 'application/x-protobuf' };
      const options = convertLegacyHttpOptions({}, 'TRACES', 'v1/traces', type);
      const told = ['otlp_http_span_exporter', TraceExporterMetricsHelper, undefined] as const;
      return new OTLPExporterBase<ReadableSpan[]>(createOtlpHttpExportDelegate(options, traceSerializer, ...told));
    }
    default:
      return undefined;
  }
}

import { InMemorySpanExporter, type ReadableSpan, SimpleSpanProcessor } from '@opentelemetry/sdk-trace';
import { startTracing } from '../src/tracing.ts';

/** A span with its children. */
export interface SpanTree {
  readonly span: ReadableSpan;
  readonly children: SpanTree[];
}

/** Traces requests into memory until it is stopped: all requests, unless OTEL_TRACES_SAMPLER is set. */
export async function memoryTracing(): Promise<{ finished(): Promise<ReadableSpan[]>; stop(): Promise<void> }> {
  const exporter = new InMemorySpanExporter();
  const processor = new SimpleSpanProcessor({ exporter });
  const { OTEL_TRACES_SAMPLER: sampler } = process.env;
  process.env.OTEL_TRACES_SAMPLER ??= 'parentbased_always_on';
  const tracing = await startTracing('ptp-test', [processor]);
  if (sampler === undefined) delete process.env.OTEL_TRACES_SAMPLER;
  return {
    async finished() {
      await processor.forceFlush();
      return exporter.getFinishedSpans();
    },
    stop: () => tracing.stop(),
  };
}

/** Returns the tree below the only span with this name. */
export function treeOf(spans: readonly ReadableSpan[], name: string): SpanTree {
  const roots = spans.filter((span) => span.name === name);
  if (roots.length !== 1) throw new Error(`${roots.length} spans are named ${name}`);
  return tree(roots[0] as ReadableSpan, spans);
}

function tree(span: ReadableSpan, spans: readonly ReadableSpan[]): SpanTree {
  const { spanId } = span.spanContext();
  const children = spans.filter((other) => other.parentSpanContext?.spanId === spanId);
  return { span, children: children.map((child) => tree(child, spans)) };
}

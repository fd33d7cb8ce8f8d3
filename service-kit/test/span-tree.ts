import { InMemorySpanExporter, type ReadableSpan, SimpleSpanProcessor } from '@opentelemetry/sdk-trace';
import { startTracing } from '../src/tracing.ts';

/** A span with those that name it as their parent. */
export interface SpanTree {
  readonly span: ReadableSpan;
  readonly children: SpanTree[];
}

/** Tracing into memory, until stopped. @param slowMillis of the tail rule; 0 for none */
export async function memoryTracing(
  slowMillis = 0,
): Promise<{ finished(): Promise<ReadableSpan[]>; stop(): Promise<void> }> {
  const exporter = new InMemorySpanExporter();
  const processor = new SimpleSpanProcessor({ exporter });
  const tracing = await startTracing('ptp-test', [processor], slowMillis);
  return {
    async finished() {
      await processor.forceFlush();
      return exporter.getFinishedSpans();
    },
    stop: () => tracing.stop(),
  };
}

/** The tree under the one span of that name. */
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

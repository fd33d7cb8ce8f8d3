import { startMetrics } from '@ptp/service-kit/metrics';
import { span, traceparentOf } from '@ptp/service-kit/spans';
import { expect, test } from 'vitest';
import { memoryTracing } from '../../service-kit/test/span-tree.ts';
import { engineMetrics } from '../src/engine-metrics.ts';

test('exemplars name the span of the caller; those of a run name one of its callers', async () => {
  const tracing = await memoryTracing();
  const metrics = startMetrics('ptp-test', 'fake');
  const engine = {
    info: { device: 'webgpu (x)' },
    usage: () => ({ sequences: 0, cacheBytes: 0 }),
    prefixCache: () => ({ bytes: 0, sequences: 0, hits: 3, lookups: 5, reusedTokens: 7, droppedTokens: 4 }),
  };
  const observe = engineMetrics(metrics.registry, engine as unknown as Parameters<typeof engineMetrics>[1]);
  const caller = traceparentOf(span('verify'));
  const slots = [
    { queueMicros: 100, traceparent: '' },
    { queueMicros: 900, traceparent: caller },
  ];
  observe({ slots, runMicros: 3000, batchTokens: 12 });
  const [, traceId, spanId] = caller.split('-');
  const { text } = await metrics.exposition('application/openmetrics-text');
  const exemplars = text.split('\n').filter((line) => line.includes(' # {'));
  const shortened = exemplars.map((line) => line.replace(/_bucket.*le=/, ' ').replace(/ \d+\.?\d*$/, ''));
  expect(shortened).toEqual([
    `ptp_engine_queue_duration_seconds "0.001"} 2 # {trace_id="${traceId}",span_id="${spanId}"} 0.0009`,
    `ptp_engine_run_duration_seconds "0.003"} 1 # {trace_id="${traceId}",span_id="${spanId}"} 0.003`,
  ]);
  for (const _ of ['first scrape', 'second scrape']) {
    const { text: later } = await metrics.exposition();
    expect(later).toContain('ptp_prefix_cache_lookups_total{hit="true"} 3\n');
    expect(later).toContain('ptp_prefix_cache_lookups_total{hit="false"} 2\n');
    expect(later).toContain('ptp_prefix_cache_reused_total 7\n');
    expect(later).toContain('ptp_prefix_cache_dropped_total 4\n');
    expect(later).toContain('ptp_engine_info{device="webgpu (x)"} 1\n');
  }
  await tracing.stop();
});

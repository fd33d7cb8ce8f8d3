import { SECONDS } from '@ptp/service-kit/metrics';
import { contextFrom, exemplarLabels } from '@ptp/service-kit/spans';
import { Counter, Gauge, Histogram, type Registry } from 'prom-client';
import type { RunObserver } from './scheduler.ts';
import type { Engine } from './types.ts';

const SIZES = [1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 512, 1024];

/** Registers the metrics of an engine: run times, batch sizes and cache sizes. @returns the observer of the runs */
export function engineMetrics(registry: Registry, engine: Engine): RunObserver {
  const registers = [registry];
  const seconds = (name: string, help: string) =>
    new Histogram({ name, help, buckets: SECONDS, enableExemplars: true, registers });
  const sizes = (name: string, help: string) => new Histogram({ name, help, buckets: SIZES, registers });
  const gauge = (name: string, help: string, read: () => number) =>
    new Gauge({
      name,
      help,
      registers,
      collect() {
        this.set(read());
      },
    });

  const { device } = engine.info;
  if (device) {
    const help = 'Always 1. The label gives the processor that runs the model.';
    new Gauge({ name: 'ptp_engine_info', help, labelNames: ['device'], registers }).set({ device }, 1);
  }
  const queue = seconds('ptp_engine_queue_duration_seconds', 'Time that a step or prompt chunk waits for a run.');
  const run = seconds('ptp_engine_run_duration_seconds', 'Duration of an engine run.');
  const batch = sizes('ptp_engine_batch_size', 'Number of sequences in an engine run.');
  const tokens = sizes('ptp_engine_batch_tokens', 'Number of tokens in an engine run, over all sequences.');

  gauge('ptp_engine_sequences', 'Number of open sequences.', () => engine.usage().sequences);
  gauge('ptp_engine_cache_size_bytes', 'Size of the KV caches of open sequences.', () => engine.usage().cacheBytes);
  gauge('ptp_prefix_cache_size_bytes', 'Size of the prefix cache.', () => engine.prefixCache().bytes);
  gauge('ptp_prefix_cache_sequences', 'Number of sequences in the prefix cache.', () => engine.prefixCache().sequences);
  new Counter({
    name: 'ptp_prefix_cache_lookups_total',
    help: 'Number of prefix cache lookups; `hit` is true if a prefix was found.',
    labelNames: ['hit'],
    registers,
    collect() {
      const { hits, lookups } = engine.prefixCache();
      this.reset();
      this.inc({ hit: 'true' }, hits);
      this.inc({ hit: 'false' }, lookups - hits);
    },
  });
  new Counter({
    name: 'ptp_prefix_cache_reused_total',
    help: 'Number of prompt tokens found in the prefix cache.',
    registers,
    collect() {
      this.reset();
      this.inc(engine.prefixCache().reusedTokens);
    },
  });

  new Counter({
    name: 'ptp_prefix_cache_dropped_total',
    help: 'Number of tokens of finished sequences that the prefix cache had no room for (ONNX Runtime only).',
    registers,
    collect() {
      this.reset();
      this.inc(engine.prefixCache().droppedTokens ?? 0);
    },
  });

  return ({ slots, runMicros, batchTokens }) => {
    let runLabels = {};
    for (const { queueMicros, traceparent } of slots) {
      const labels = exemplarLabels(contextFrom(traceparent));
      queue.observe({ value: queueMicros / 1e6, exemplarLabels: labels });
      if (labels.trace_id) runLabels = labels;
    }
    run.observe({ value: runMicros / 1e6, exemplarLabels: runLabels });
    batch.observe(slots.length);
    tokens.observe(batchTokens);
  };
}

import { SECONDS } from '@ptp/service-kit/metrics';
import { contextFrom, exemplarLabels } from '@ptp/service-kit/spans';
import { Counter, Gauge, Histogram, type Registry } from 'prom-client';
import type { RunObserver } from './scheduler.ts';
import type { Engine } from './types.ts';

const SIZES = [1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 512, 1024];

/** Metrics of a service with an engine: run times, batch sizes and cache sizes. @returns the observer of each run */
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

  const queue = seconds('ptp_engine_queue_duration_seconds', 'Time that steps and prompt chunks wait for a run.');
  const run = seconds('ptp_engine_run_duration_seconds', 'Duration of engine runs.');
  const batch = sizes('ptp_engine_batch_size', 'Sequences in a run.');
  const tokens = sizes('ptp_engine_batch_tokens', 'Tokens in a run, over all its sequences.');

  gauge('ptp_engine_sequences', 'Open sequences.', () => engine.usage().sequences);
  gauge('ptp_engine_cache_size_bytes', 'KV cache of open sequences.', () => engine.usage().cacheBytes);
  gauge('ptp_prefix_cache_size_bytes', 'KV cache kept of ended sequences.', () => engine.prefixCache().bytes);
  gauge('ptp_prefix_cache_sequences', 'Ended sequences in the prefix cache.', () => engine.prefixCache().sequences);
  new Counter({
    name: 'ptp_prefix_cache_lookups_total',
    help: 'Prompts looked up in the prefix cache; `hit` if a prefix was found.',
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
    help: 'Prompt tokens found in the prefix cache.',
    registers,
    collect() {
      this.reset();
      this.inc(engine.prefixCache().reusedTokens);
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

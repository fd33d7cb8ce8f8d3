import type { Meter } from '@opentelemetry/api';
import { SECONDS } from '@ptp/service-kit/metrics';
import { contextFrom, contextOf } from '@ptp/service-kit/spans';
import type { Engine } from './types.ts';

/** One engine run. Times in microseconds. */
export interface RunFacts {
  /** How long each has waited, and its caller's span if that is sampled. */
  readonly slots: readonly { readonly queueMicros: number; readonly traceparent?: string | undefined }[];
  readonly runMicros: number;
  readonly batchTokens: number;
}

const SIZES = [1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 512, 1024];

/** Metrics of a service with an engine: what its runs take, and what its caches hold. @returns to be told of each run */
export function engineMetrics(meter: Meter, engine: Engine): (run: RunFacts) => void {
  const histogram = (name: string, unit: string, limits: number[], description: string) =>
    meter.createHistogram(name, { unit, description, advice: { explicitBucketBoundaries: limits } });
  const gauge = (name: string, unit: string, description: string) =>
    meter.createObservableGauge(name, { unit, description });
  const counter = (name: string, unit: string, description: string) =>
    meter.createObservableCounter(name, { unit, description });

  const queue = histogram(
    'ptp.engine.queue.duration',
    's',
    SECONDS,
    'How long steps and parts of prompts wait for a run.',
  );
  const run = histogram('ptp.engine.run.duration', 's', SECONDS, 'How long runs of the engine take.');
  const batch = histogram('ptp.engine.batch.size', '{sequence}', SIZES, 'Sequences in a run.');
  const tokens = histogram('ptp.engine.batch.tokens', '{token}', SIZES, 'Tokens in a run, over all its sequences.');

  const open = gauge('ptp.engine.sequences', '{sequence}', 'Sequences that are open.');
  const cacheBytes = gauge('ptp.engine.cache.size', 'By', 'Keys and values held for open sequences.');
  const keptBytes = gauge('ptp.prefix_cache.size', 'By', 'Keys and values kept of ended sequences.');
  const kept = gauge('ptp.prefix_cache.sequences', '{sequence}', 'Ended sequences that are kept.');
  const lookups = counter(
    'ptp.prefix_cache.lookups',
    '{lookup}',
    'Prompts that came; `hit` for those of which a beginning was known.',
  );
  const reused = counter('ptp.prefix_cache.reused', '{token}', 'Tokens of prompts that did not have to be read.');
  meter.addBatchObservableCallback(
    (result) => {
      const { sequences, cacheBytes: bytes } = engine.usage();
      const prefix = engine.prefixCache();
      result.observe(open, sequences);
      result.observe(cacheBytes, bytes);
      result.observe(keptBytes, prefix.bytes);
      result.observe(kept, prefix.sequences);
      result.observe(lookups, prefix.hits, { hit: true });
      result.observe(lookups, prefix.lookups - prefix.hits, { hit: false });
      result.observe(reused, prefix.reusedTokens);
    },
    [open, cacheBytes, keptBytes, kept, lookups, reused],
  );
  return ({ slots, runMicros, batchTokens }) => {
    const contexts = slots.map(({ traceparent }) => contextOf(contextFrom(traceparent)));
    slots.forEach(({ queueMicros }, i) => void queue.record(queueMicros / 1e6, {}, contexts[i]));
    run.record(
      runMicros / 1e6,
      {},
      contexts.find((context) => context),
    );
    batch.record(slots.length);
    tokens.record(batchTokens);
  };
}

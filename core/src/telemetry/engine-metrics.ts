import type { Meter } from '@opentelemetry/api';
import type { SequenceStore } from '../engine/engine.ts';
import { SECONDS } from './metrics.ts';

/** One engine run, with how long each of its slots has waited; microseconds. */
export interface RunFacts {
  readonly queueMicros: readonly number[];
  readonly runMicros: number;
  readonly batchTokens: number;
}

const SIZES = [1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 512, 1024];

/** Metrics of a service with an engine: what its runs take, and what its caches hold. @returns to be told of each run */
export function engineMetrics(meter: Meter, engine: SequenceStore): (run: RunFacts) => void {
  const seconds = { unit: 's', advice: { explicitBucketBoundaries: SECONDS } };
  const sizes = (unit: string) => ({ unit, advice: { explicitBucketBoundaries: SIZES } });
  const queue = meter.createHistogram('ptp.engine.queue.duration', {
    ...seconds,
    description: 'How long steps and parts of prompts wait for a run.',
  });
  const run = meter.createHistogram('ptp.engine.run.duration', {
    ...seconds,
    description: 'How long runs of the engine take.',
  });
  const batch = meter.createHistogram('ptp.engine.batch.size', {
    ...sizes('{sequence}'),
    description: 'Sequences in a run.',
  });
  const tokens = meter.createHistogram('ptp.engine.batch.tokens', {
    ...sizes('{token}'),
    description: 'Tokens in a run, over all its sequences.',
  });

  const open = meter.createObservableGauge('ptp.engine.sequences', {
    unit: '{sequence}',
    description: 'Sequences that are open.',
  });
  const cacheBytes = meter.createObservableGauge('ptp.engine.cache.size', {
    unit: 'By',
    description: 'Keys and values held for open sequences.',
  });
  const keptBytes = meter.createObservableGauge('ptp.prefix_cache.size', {
    unit: 'By',
    description: 'Keys and values kept of ended sequences.',
  });
  const kept = meter.createObservableGauge('ptp.prefix_cache.sequences', {
    unit: '{sequence}',
    description: 'Ended sequences that are kept.',
  });
  const lookups = meter.createObservableCounter('ptp.prefix_cache.lookups', {
    unit: '{lookup}',
    description: 'Prompts that came; `hit` for those of which a beginning was known.',
  });
  const reused = meter.createObservableCounter('ptp.prefix_cache.reused', {
    unit: '{token}',
    description: 'Tokens of prompts that did not have to be read.',
  });
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
  return ({ queueMicros, runMicros, batchTokens }) => {
    for (const micros of queueMicros) queue.record(micros / 1e6);
    run.record(runMicros / 1e6);
    batch.record(queueMicros.length);
    tokens.record(batchTokens);
  };
}

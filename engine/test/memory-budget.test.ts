import { join } from 'node:path';
import { loadManifest } from '@ptp/protocol/manifest';
import { budgetFields } from '@ptp/service-kit/memory';
import { expect, test } from 'vitest';
import { type ModelMemory, modelBudget } from '../src/memory-budget.ts';

const manifest = await loadManifest(join(import.meta.dirname, '../../test/models/tiny'));
const small: ModelMemory = { kind: 'target', manifest, sequences: 0, prefixCacheBytes: 0 };
const perSequence = (manifest.context_length + 1) * manifest.bytes_per_token.target;
const alone = modelBudget({ ...small, sequences: 1 }, 1e12).total;

test('a budget is the sum of its parts, and admits the sequences that fit', () => {
  const budget = modelBudget({ ...small, prefixCacheBytes: 7e6 }, alone + 7e6 + 4.5 * perSequence);
  expect(budget.sequences).toBe(5);
  expect(budget.parts).toMatchObject({ prefix_cache: 7e6, sequences: 5 * perSequence });
  expect(budget.total).toBe(Object.values(budget.parts).reduce((a, b) => a + b));
  expect(modelBudget(small, 1e12).sequences).toBe(256);
  const fields = budgetFields(budget);
  expect(fields).toMatchObject({ prefix_cache_mb: 7, total_mb: Math.ceil(budget.total / 1e6) });
});

test('each graph has its own weights, and weights stored as float16 double if they are used as float32', () => {
  const model = (changes: object, kind: ModelMemory['kind'] = 'target') => {
    const changed = { ...manifest, ...changes } as typeof manifest;
    return modelBudget({ ...small, kind, manifest: changed }, 1e12).parts.model ?? 0;
  };
  const weights = manifest.files['target.weights']?.bytes ?? 0;
  const slots = (...slots: number[]) => ({ target: { slots } });
  expect(model(slots(1, 2, 4)) - model(slots(1, 2))).toBe(10e6 + weights);
  const doubled = { target: { slots: [1], precision: 'float32', storage: 'float16' } };
  expect(model(doubled) - model(slots(1))).toBe(weights);
  expect(model({ max_slots: [1] }, 'drafter')).toBe(10e6 + 2 * (manifest.files['drafter.weights']?.bytes ?? 0));
});

test('a budget above the memory is rejected in a sentence that names the setting to lower', () => {
  const many = { ...small, sequences: 3_000_000 };
  expect(() => modelBudget(many, alone + 8.5 * perSequence)).toThrow(
    /^the process needs \d+ MB of memory \(runtime \d+, model \d+, prefix cache 0, sequences \d+\), but has \d+ MB: lower PTP_SEQUENCE_LIMIT from 3000000 to 9, or raise the memory limit$/,
  );
  expect(() => modelBudget({ ...small, prefixCacheBytes: 9e9 }, alone)).toThrow(/lower PTP_PREFIX_CACHE_MB, or raise/);
  expect(() => modelBudget(small, alone - perSequence)).toThrow(/has \d+ MB: raise the memory limit$/);
});

test('a prefix cache that may shrink leaves room for the sequences', () => {
  const cached = { ...small, prefixCacheBytes: 256e6, prefixCacheShrinks: true };
  expect(modelBudget(cached, alone + 100e6)).toMatchObject({ prefixCacheBytes: 100e6, sequences: 1 });
  expect(modelBudget(cached, 1e12)).toMatchObject({ prefixCacheBytes: 256e6, sequences: 256 });
  const four = modelBudget({ ...cached, sequences: 4 }, alone + 3 * perSequence + 50e6);
  expect(four).toMatchObject({ prefixCacheBytes: 50e6, sequences: 4 });
  expect(four.parts.prefix_cache).toBe(50e6);
  expect(() => modelBudget(cached, alone - 1)).toThrow(/has \d+ MB: raise the memory limit$/);
});

test('runs need float32 copies of one layer of a float16 cache, and new caches in graphs for GPUs', () => {
  const { kv_heads, head_width } = manifest.sizes;
  const runtime = (changes: Partial<NonNullable<typeof manifest.target>>) =>
    modelBudget({ ...small, manifest: { ...manifest, target: { ...manifest.target, ...changes } } }, 1e12).parts
      .runtime ?? 0;
  const rows = manifest.context_length + 1;
  expect(runtime({ cache_type: 'float16' }) - runtime({})).toBe(2 * 2 * rows * kv_heads * head_width * 4);
  expect(runtime({ device: 'gpu' }) - runtime({})).toBe(Math.max(...manifest.max_slots) * perSequence);
});

test('runs need buffers for the vocabulary and for the mask over the context', () => {
  const runtime = (changes: object) => {
    const changed = { ...manifest, ...changes } as typeof manifest;
    return modelBudget({ ...small, manifest: changed }, 1e12).parts.runtime ?? 0;
  };
  const { sizes, context_length } = manifest;
  expect(runtime({ sizes: { ...sizes, vocab: sizes.vocab + 1 } }) - runtime({})).toBe(192 * 5 * 4);
  expect(runtime({ context_length: context_length + 1 }) - runtime({})).toBe(192 * 4);
});

import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { openDraftEngine, openTargetEngine } from '../src/onnx/engine.ts';
import { SequenceCache } from '../src/onnx/kv-cache.ts';
import { PrefixCache } from '../src/onnx/prefix-cache.ts';
import { BLOCK, prefixCacheLimit } from '../src/prefix-blocks.ts';
import { randomTokens } from '../src/sampling/uniforms.ts';
import type { DraftEngine, TargetEngine } from '../src/types.ts';

const LAYERS = 2;
const WIDTH = 4;
const BYTES_PER_ROW = LAYERS * 2 * WIDTH * 4;

test('by default, has room for two full sequences within limits', () => {
  const limit = (context_length: number, memory: number, kind: 'target' | 'drafter' = 'target') => {
    const manifest = { context_length, bytes_per_token: { target: 200_000, drafter: 100_000 } };
    return prefixCacheLimit('auto', manifest, kind, memory);
  };
  expect(limit(2048, 32e9)).toBe(2 * 2049 * 200_000);
  expect(limit(2048, 32e9, 'drafter')).toBe(2 * 2049 * 100_000);
  expect(limit(100, 32e9)).toBe(256e6);
  expect(limit(40_960, 32e9)).toBe(4e9);
  expect(limit(40_960, 1e9)).toBe(256e6);
  const sizes = { context_length: 100, bytes_per_token: { target: 1 } };
  expect([0, 7].map((megabytes) => prefixCacheLimit(megabytes, sizes, 'target'))).toEqual([0, 7e6]);
});

/** Returns a cache with room for 64 rows, each of which is filled with its token. */
function cacheOf(tokens: readonly number[]): SequenceCache {
  const cache = new SequenceCache(LAYERS, WIDTH, 64);
  cache.prepare(0, tokens.length);
  const rows = () => Float32Array.from({ length: tokens.length * WIDTH }, (_, i) => tokens[Math.floor(i / WIDTH)] ?? 0);
  cache.append(tokens, { keys: [rows(), rows()], values: [rows(), rows()] }, 0);
  return cache;
}

/** Returns the tokens `from` to `from + count - 1`. */
const counting = (from: number, count: number) => Array.from({ length: count }, (_, i) => from + i);

describe('PrefixCache', () => {
  const room = 2 * 64 * BYTES_PER_ROW;

  test('finds the longest shared beginning in whole blocks, in parked and open caches', () => {
    const parked = new PrefixCache(room);
    const [short, long, open] = [[...counting(0, 20), 99], counting(0, 40), counting(0, 60)].map(cacheOf) as [
      SequenceCache,
      SequenceCache,
      SequenceCache,
    ];
    parked.park(short);
    parked.park(long);
    expect(parked.longest(counting(0, 33), [])).toEqual({ cache: long, rows: 2 * BLOCK });
    expect(parked.longest([...counting(0, 50), 7], [open])).toEqual({ cache: open, rows: 3 * BLOCK });
    expect(parked.longest([...counting(0, 50), 7], [])).toEqual({ cache: long, rows: 2 * BLOCK });
    expect(parked.longest(counting(0, BLOCK - 1), [open])).toBeUndefined();
    expect(parked.longest(counting(1, 40), [open])).toBeUndefined();
  });

  test('keeps one of two caches with the same tokens', () => {
    const parked = new PrefixCache(room);
    const long = cacheOf(counting(0, 30));
    parked.park(cacheOf(counting(0, 20)));
    parked.park(long);
    parked.park(cacheOf(counting(0, 10)));
    expect([parked.sequences, parked.bytes]).toEqual([1, long.bytes]);
    expect(parked.longest(counting(0, 30), [])?.cache).toBe(long);
  });

  test('drops the least recently used caches beyond its limit; a shared first token is not enough', () => {
    const parked = new PrefixCache(room);
    const texts = [100, 200, 300].map((from) => [0, ...counting(from, 20)]);
    const [a, b, c] = texts.map(cacheOf) as [SequenceCache, SequenceCache, SequenceCache];
    parked.park(a);
    parked.park(b);
    parked.longest(texts[0] as number[], []);
    parked.longest([0, ...counting(400, 20)], []);
    parked.park(c);
    expect(parked.bytes).toBe(room);
    expect(texts.map((text) => parked.longest(text, [])?.cache)).toEqual([a, undefined, c]);
  });

  test('keeps the beginning of a sequence that is larger than its limit, and counts what it drops', () => {
    const parked = new PrefixCache(2 * BLOCK * BYTES_PER_ROW + 1);
    const long = cacheOf(counting(0, 60));
    parked.park(long);
    expect([parked.bytes, parked.droppedRows]).toEqual([2 * BLOCK * BYTES_PER_ROW, 60 - 2 * BLOCK]);
    expect(parked.longest(counting(0, 60), [])).toEqual({ cache: long, rows: 2 * BLOCK });
    expect([...long.view('keys', 1, 31, 32)]).toEqual([31, 31, 31, 31]);
    const other = cacheOf(counting(100, 60));
    parked.park(other);
    expect([parked.sequences, parked.droppedRows]).toEqual([1, 2 * (60 - 2 * BLOCK) + 2 * BLOCK]);
    const tiny = new PrefixCache(BYTES_PER_ROW);
    tiny.park(cacheOf(counting(0, 60)));
    expect([tiny.sequences, tiny.droppedRows]).toEqual([0, 60]);
  });

  test('with a limit of 0 bytes keeps and finds nothing', () => {
    const parked = new PrefixCache(0);
    const cache = cacheOf(counting(0, 20));
    parked.park(cache);
    expect(parked.sequences).toBe(0);
    expect(parked.longest(counting(0, 20), [cache])).toBeUndefined();
  });
});

test('reused rows are copies', () => {
  const [from, to] = [cacheOf([1, 2, 3]), new SequenceCache(LAYERS, WIDTH, 64)];
  to.prepare(0, 5);
  to.copyFrom(from, 2);
  from.prepare(0, 1);
  const zeros = [new Float32Array(WIDTH), new Float32Array(WIDTH)];
  from.append([9], { keys: zeros, values: zeros }, 0);
  expect(to.rows).toBe(2);
  expect([...to.view('keys', 1, 0, 2)]).toEqual([1, 1, 1, 1, 2, 2, 2, 2]);
  expect([...to.tokens.subarray(0, 2)]).toEqual([1, 2]);
});

describe('reusePrefix of the ONNX engine', () => {
  const dir = fileURLToPath(new URL('../../test/models/tiny', import.meta.url));
  const picking = { sampling: { temperature: 1, topK: 0, topP: 1 }, uniforms: { seed: 7n, offset: 0 } };
  const text = randomTokens(3n, 120, 257);
  let plain: TargetEngine;
  let caching: TargetEngine;
  beforeAll(async () => {
    [plain, caching] = await Promise.all([openTargetEngine({ dir }), openTargetEngine({ dir, prefixCacheBytes: 1e6 })]);
  });
  afterAll(() => Promise.all([plain.dispose(), caching.dispose()]));

  /**
   * Reuses as many rows of a text as possible and runs the rest.
   *
   * @returns picks and log-probabilities after each token that ran
   */
  async function read(engine: TargetEngine, tokens: number[], from: number) {
    const sequence = engine.open();
    const known = await engine.reusePrefix(sequence, tokens.slice(0, -1));
    if (known < from) await engine.run([{ sequence, at: known, tokens: tokens.slice(known, from) }]);
    const rest = tokens.slice(from);
    const { outputs } = await engine.run([{ sequence, at: from, tokens: rest, ...picking }]);
    engine.close(sequence);
    return { known, picks: outputs[0]?.picks, logProbabilities: outputs[0]?.logProbabilities };
  }

  test('gives the same bits and counts the reused tokens', async () => {
    const other = [...text.slice(0, 77), 5, ...text.slice(78)];
    const { known: first } = await read(caching, text, 100);
    expect(first).toBe(0);
    for (const [tokens, known] of [
      [text, 112],
      [other, 64],
      [[...text, 8, 9, 10], 112],
      [text.slice(0, 40), 32],
    ] as const) {
      const at = Math.min(tokens.length - 1, 100);
      const from = Math.max(at, known);
      const expected = await read(plain, [...tokens], from);
      const found = await read(caching, [...tokens], from);
      expect(found).toEqual({ ...expected, known });
    }
    const usage = caching.prefixCache();
    expect(usage).toMatchObject({ lookups: 5, hits: 4, reusedTokens: 112 + 64 + 112 + 32 });
    expect(usage.sequences).toBe(2);
    expect(usage.bytes).toBeGreaterThan(0);
    expect(caching.usage()).toEqual({ sequences: 0, cacheBytes: 0 });
    expect(plain.prefixCache()).toMatchObject({ sequences: 0, lookups: 0, hits: 0 });
  });

  test('serves a sequence that is still running', async () => {
    const first = caching.open();
    const own = text.map((token) => (token + 100) % 257);
    await caching.run([{ sequence: first, at: 0, tokens: own }]);
    expect(await read(caching, own, 119)).toEqual({ ...(await read(plain, own, 119)), known: 112 });
    caching.close(first);
  });
});

test('a drafter drafts the same with reused rows', async () => {
  const dir = fileURLToPath(new URL('../../test/models/tiny', import.meta.url));
  const [plain, caching] = await Promise.all([
    openDraftEngine({ dir }),
    openDraftEngine({ dir, prefixCacheBytes: 1e6 }),
  ]);
  const picking = { sampling: { temperature: 1, topK: 0, topP: 1 }, uniforms: { seed: 7n, offset: 0 } };
  const text = randomTokens(3n, 60, 257);
  async function draft(engine: DraftEngine) {
    const sequence = engine.open();
    const known = await engine.reusePrefix(sequence, text.slice(0, -1));
    if (known < 59)
      await engine.run([{ sequence, at: known, tokens: text.slice(known, 59), ...picking, branches: [] }]);
    const slot = { sequence, at: 59, tokens: text.slice(59), ...picking, branches: [{ visible: 60, length: 6 }] };
    const { outputs } = await engine.run([slot]);
    engine.close(sequence);
    return { known, branches: outputs[0]?.branches };
  }
  const expected = await draft(plain);
  expect([expected.known, expected.branches?.[0]?.tokens.length]).toEqual([0, 6]);
  expect(await draft(caching)).toEqual(expected);
  expect(await draft(caching)).toEqual({ ...expected, known: 48 });
  await Promise.all([plain.dispose(), caching.dispose()]);
});

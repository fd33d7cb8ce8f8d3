import { describe, expect, test } from 'vitest';
import { branchMask, causalMask, contextFeeds, draftFeeds, padded, pickFeeds } from '../src/engine/feeds.ts';
import { SequenceCache } from '../src/engine/sequence-cache.ts';

const sampling = { temperature: 0.7, topK: 50, topP: 0.9 };
/** Rows of a mask as strings, `x` where a token sees another. */
const drawn = (mask: Float32Array, width: number) =>
  Array.from({ length: mask.length / width }, (_, row) =>
    Array.from(mask.subarray(row * width, (row + 1) * width), (value) => (value === 0 ? 'x' : '.')).join(''),
  );

describe('masks', () => {
  test('a context token sees the past and up to itself', () => {
    expect(drawn(causalMask(2, 3), 5)).toEqual(['xxx..', 'xxxx.', 'xxxxx']);
    expect(drawn(causalMask(0, 2), 2)).toEqual(['x.', 'xx']);
  });

  test('a drafted position sees the context before its branch, and its branch up to itself', () => {
    const branches = [
      { visible: 1, u: new Float32Array(2), last: 0 },
      { visible: 3, u: new Float32Array(1), last: 0 },
    ];
    expect(drawn(branchMask({ context: 4, sampling, branches }), 7)).toEqual(['x...x..', 'x...xx.', 'xxx...x']);
  });
});

describe('feeds', () => {
  test('pack the slots one after another', () => {
    const feeds = contextFeeds([padded({ past: 3, tokens: [7] }), { past: 0, tokens: [1, 2, 3] }]);
    expect(feeds.ids).toMatchObject({ dims: [1, 5], data: BigInt64Array.of(7n, 0n, 1n, 2n, 3n) });
    expect(feeds.pos?.data).toEqual(BigInt64Array.of(3n, 4n, 0n, 1n, 2n));
    expect(feeds.splits?.data).toEqual(BigInt64Array.of(2n, 3n));
    expect(feeds.mask_0?.dims).toEqual([2, 5]);
    expect(feeds.mask_1?.dims).toEqual([3, 3]);
    expect(contextFeeds([{ past: 0, tokens: [1, 2] }])).not.toHaveProperty('splits');
  });

  test('ask for two picks at least', () => {
    expect(pickFeeds([]).rows?.data).toEqual(BigInt64Array.of(0n, 0n));
    const feeds = pickFeeds([{ row: 4, sampling, u: 0.25 }]);
    expect(feeds.rows?.data).toEqual(BigInt64Array.of(4n, 0n));
    expect(feeds.u).toMatchObject({ dims: [2, 1], data: Float32Array.of(0.25, 0) });
    expect(feeds.temperature?.data).toEqual(Float32Array.of(0.7, 0));
  });

  test('count the token before a branch at its first position only', () => {
    const branches = [
      { visible: 5, u: Float32Array.of(0.1, 0.2), last: 42 },
      { visible: 6, u: Float32Array.of(0.3), last: 43 },
    ];
    const feeds = draftFeeds([{ context: 6, sampling, branches }]);
    expect(feeds.last?.data).toEqual(BigInt64Array.of(42n, 42n, 43n));
    expect(feeds.first?.data).toEqual(Float32Array.of(1, 0, 1));
    expect(feeds.upos?.data).toEqual(BigInt64Array.of(4n, 5n, 5n));
    expect(feeds.umask_0?.dims).toEqual([3, 9]);
  });
});

test('a cache grows by doubling to its limit and keeps its rows', () => {
  const cache = new SequenceCache(2, 4, 200);
  const rows = (count: number, value: number) => [0, 1].map((layer) => new Float32Array(count * 4).fill(value + layer));
  cache.prepare(0, 60);
  cache.append(Array(60).fill(1), rows(60, 1), rows(60, 5), 0);
  expect(cache.bytes).toBe(64 * 2 * 2 * 4 * 4);
  cache.prepare(50, 20);
  cache.append(Array(20).fill(2), rows(20, 2), rows(20, 6), 0);
  expect([cache.rows, cache.bytes]).toEqual([70, 128 * 2 * 2 * 4 * 4]);
  const keys = cache.past('keys', 1);
  expect([keys.length, keys[49 * 4], keys[50 * 4]]).toEqual([280, 2, 3]);
  expect([cache.tokens[49], cache.tokens[50]]).toEqual([1, 2]);
  cache.prepare(70, 130);
  expect(cache.bytes).toBe(200 * 2 * 2 * 4 * 4);
  expect(() => cache.prepare(71, 1)).toThrow('row 71');
});

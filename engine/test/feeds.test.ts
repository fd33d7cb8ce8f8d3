import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { bindCaches } from '../src/onnx/cache-binding.ts';
import { causalMask, contextFeeds, padded, paddedLength } from '../src/onnx/context-feeds.ts';
import { branchMask, draftFeeds, gridFeeds, positionsOf } from '../src/onnx/draft-feeds.ts';
import { SequenceCache } from '../src/onnx/kv-cache.ts';
import type { OnnxModel } from '../src/onnx/model.ts';
import { pickFeeds } from '../src/onnx/target-feeds.ts';
import { float32 } from '../src/onnx/tensors.ts';
import { adjusted } from '../src/testing/reference-sampler.ts';

const sampling = { temperature: 0.7, topK: 50, topP: 0.9 };
/** Returns the rows of a mask as strings, with `x` where a token attends to another. */
const drawn = (mask: Float32Array, width: number) =>
  Array.from({ length: mask.length / width }, (_, row) =>
    Array.from(mask.subarray(row * width, (row + 1) * width), (value) => (value === 0 ? 'x' : '.')).join(''),
  );

describe('masks', () => {
  test('a context token attends to the past and up to itself', () => {
    expect(drawn(causalMask(2, 3), 5)).toEqual(['xxx..', 'xxxx.', 'xxxxx']);
    expect(drawn(causalMask(0, 2), 2)).toEqual(['x.', 'xx']);
  });

  test('a drafted position attends to the context before its branch, and to its branch up to itself', () => {
    const branch = { u: new Float32Array(), last: 0 };
    const branches = [
      { ...branch, visible: 1, length: 2 },
      { ...branch, visible: 3, length: 1 },
    ];
    const part = { context: 4, sampling, branches };
    expect(positionsOf(part)).toBe(3);
    expect(drawn(branchMask(part), 7)).toEqual(['x...x..', 'x...xx.', 'xxx...x']);
  });
});

describe('feeds', () => {
  test('pack the slots one after another', () => {
    const feeds = contextFeeds([padded({ at: 3, tokens: [7] }, 2), { at: 0, tokens: [1, 2, 3] }]);
    expect(feeds.ids).toMatchObject({ dims: [1, 5], data: BigInt64Array.of(7n, 0n, 1n, 2n, 3n) });
    expect(feeds.pos?.data).toEqual(BigInt64Array.of(3n, 4n, 0n, 1n, 2n));
    expect(feeds.splits?.data).toEqual(BigInt64Array.of(2n, 3n));
    expect(feeds.mask_0?.dims).toEqual([2, 5]);
    expect(feeds.mask_1?.dims).toEqual([3, 3]);
    expect(contextFeeds([{ at: 0, tokens: [1, 2] }])).not.toHaveProperty('splits');
  });

  test('pad a single token unless its row needs no second one', () => {
    const slot = { at: 3, tokens: [7] };
    expect([padded(slot, 2).tokens, padded(slot, 1).tokens]).toEqual([[7, 0], [7]]);
    expect([paddedLength(slot, 2), paddedLength(slot, 1)]).toEqual([2, 1]);
  });

  test('request at least two picks', () => {
    expect(pickFeeds([], 1, 8).rows?.data).toEqual(BigInt64Array.of(0n, 0n));
    const feeds = pickFeeds([{ row: 4, sampling, u: Float32Array.of(0.25) }], 1, 8);
    expect(feeds.rows?.data).toEqual(BigInt64Array.of(4n, 0n));
    expect(feeds.u).toMatchObject({ dims: [2, 1], data: Float32Array.of(0.25, 0) });
    expect(feeds.temperature?.data).toEqual(Float32Array.of(0.7, 0));
  });

  test('contain all uniforms of a pick', () => {
    const picks = [0, 1, 2].map((row) => ({ row, sampling, u: Float32Array.of(row / 4, row / 8) }));
    expect(pickFeeds(picks, 2, 8).u).toMatchObject({
      dims: [3, 2],
      data: Float32Array.of(0, 0, 0.25, 0.125, 0.5, 0.25),
    });
    expect(pickFeeds([], 2, 8).u).toMatchObject({ dims: [2, 2], data: new Float32Array(4) });
  });

  test('forbid tokens that a mask leaves out', () => {
    const pick = { row: 0, sampling: { temperature: 1, topK: 0, topP: 1 }, u: new Float32Array(1) };
    const adjust = {
      scaled: new Int32Array(),
      scale: 1,
      biased: Int32Array.of(1, 2),
      biases: Float32Array.of(0.5, 3),
      allowed: Uint8Array.of(0b1010),
    };
    const { bias } = pickFeeds([pick, { ...pick, adjust }], 1, 4);
    expect(bias?.dims).toEqual([2, 4]);
    const out = Number.NEGATIVE_INFINITY;
    expect([...(bias?.data ?? [])]).toEqual([0, 0, 0, 0, out, 0.5, out, 0]);
    const row = new Float32Array([1, 2, 3, 4]);
    expect([...adjusted(row, adjust)]).toEqual([out, 2.5, out, 4]);
  });

  test('contain adjustments for all rows if one has any, otherwise for none', () => {
    const pick = { row: 0, sampling, u: Float32Array.of(0) };
    expect(pickFeeds([pick], 1, 4)).toMatchObject({ scale: { dims: [0, 4] }, bias: { dims: [0, 4] } });
    const adjust = {
      scaled: Int32Array.of(1),
      scale: 2,
      biased: Int32Array.of(3, 0),
      biases: Float32Array.of(-1, Number.NEGATIVE_INFINITY),
    };
    const { scale, bias } = pickFeeds([pick, { ...pick, adjust }], 1, 4);
    expect(scale).toMatchObject({ dims: [2, 4], data: Float32Array.of(1, 1, 1, 1, 1, 2, 1, 1) });
    const infinite = Number.NEGATIVE_INFINITY;
    expect(bias).toMatchObject({ dims: [2, 4], data: Float32Array.of(0, 0, 0, 0, infinite, 0, 0, -1) });
  });

  const branches = [
    { visible: 5, length: 2, u: Float32Array.of(0.1, 0.2), last: 42 },
    { visible: 6, length: 1, u: Float32Array.of(0.3), last: 43 },
  ];

  test('count the token before a branch at its first position only', () => {
    const feeds = draftFeeds([{ context: 6, sampling, branches }], 1);
    expect(feeds.u).toMatchObject({ dims: [1, 3, 1], data: Float32Array.of(0.1, 0.2, 0.3) });
    expect(feeds.last?.data).toEqual(BigInt64Array.of(42n, 42n, 43n));
    expect(feeds.first?.data).toEqual(Float32Array.of(1, 0, 1));
    expect(feeds.upos?.data).toEqual(BigInt64Array.of(4n, 5n, 5n));
    expect(feeds.umask_0?.dims).toEqual([3, 9]);
  });

  test('count positions, not uniforms, if a position has two', () => {
    const long = { visible: 5, length: 2, u: Float32Array.of(0.1, 0.2, 0.3, 0.4), last: 42 };
    const short = { visible: 6, length: 1, u: Float32Array.of(0.5, 0.6), last: 43 };
    const other = { visible: 1, length: 1, u: Float32Array.of(0.7, 0.8), last: 7 };
    const parts = [
      { context: 6, sampling, branches: [long, short] },
      { context: 2, sampling: { ...sampling, temperature: 0 }, branches: [other] },
    ];
    const feeds = draftFeeds(parts, 2);
    expect(feeds.u).toMatchObject({ dims: [1, 4, 2], data: Float32Array.of(0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8) });
    expect(feeds.upos).toMatchObject({ dims: [1, 4], data: BigInt64Array.of(4n, 5n, 5n, 0n) });
    expect(feeds.last?.data).toEqual(BigInt64Array.of(42n, 42n, 43n, 7n));
    expect(feeds.first).toMatchObject({ dims: [1, 4, 1], data: Float32Array.of(1, 0, 1, 1) });
    expect(feeds.temperature?.data).toEqual(Float32Array.of(0.7, 0.7, 0.7, 0));
    expect(feeds.usplits?.data).toEqual(BigInt64Array.of(3n, 1n));
    expect([feeds.umask_0?.dims, feeds.umask_1?.dims]).toEqual([
      [3, 9],
      [1, 3],
    ]);
    expect(feeds.grid).toMatchObject({ dims: [2, 3], data: BigInt64Array.of(0n, 2n, 3n, 1n, 0n, 0n) });
    expect(feeds.cell).toMatchObject({ dims: [4], data: BigInt64Array.of(0n, 3n, 1n, 2n) });
  });

  test('put every position into a grid cell of its branch, to which `cell` points back', () => {
    const someLengths = fc.array(fc.integer({ min: 1, max: 9 }), { minLength: 1, maxLength: 12 });
    fc.assert(
      fc.property(someLengths, (lengths) => {
        const { grid, cell } = gridFeeds(lengths);
        const [width, depth] = [lengths.length, Math.max(...lengths)];
        const positions = lengths.flatMap((length, branch) => Array.from({ length }, (_, k) => ({ branch, k })));
        expect([grid?.dims, cell?.dims]).toEqual([[depth, width], [positions.length]]);
        const where = Array.from(cell?.data ?? [], Number);
        expect(where).toEqual(positions.map(({ branch, k }) => k * width + branch));
        expect(where.map((index) => Number(grid?.data[index]))).toEqual([...positions.keys()]);
        const unused = Array.from(grid?.data ?? [], Number).filter((_, index) => !where.includes(index));
        expect(unused.every((index) => index === 0)).toBe(true);
      }),
    );
  });
});

test.each([1, 2])('new rows go into the cache of their slot if slots have at least %i rows', (minRows) => {
  const caches = new Map([0, 1].map((sequence) => [sequence, new SequenceCache(1, 1, 8)]));
  const slots = [0, 1].map((sequence) => ({ sequence, at: 0, tokens: [5] }));
  for (const cache of caches.values()) cache.prepare(0, minRows);
  const model = { inPlace: false, layers: 1, heads: 1, rowWidth: 1, minRows } as OnnxModel;
  const rows = float32(
    Float32Array.from({ length: 2 * minRows }, (_, row) => row),
    [1, 2 * minRows, 1],
  );
  bindCaches(model, caches).finish(slots, { nk0: rows, nv0: rows });
  expect(slots.map(({ sequence }) => caches.get(sequence)?.view('keys', 0, 0, 1)[0])).toEqual([0, minRows]);
});

test('a float16 cache takes half the memory, and is passed as the bits of its rows', () => {
  const cache = new SequenceCache(1, 4, 200, Uint16Array);
  cache.prepare(0, 2);
  cache.append([1, 2], { keys: [Uint16Array.of(1, 2, 3, 4, 5, 6, 7, 8)], values: [new Uint16Array(8)] }, 0);
  expect(cache.bytes).toBe(64 * 2 * 4 * 2);
  const model = { inPlace: true, halfCaches: true, layers: 1, heads: 2, rowWidth: 4, minRows: 1 } as OnnxModel;
  const binding = bindCaches(model, new Map([[0, cache]]));
  const slots = [{ sequence: 0, at: 1, tokens: [9] }];
  const { k0_0, k0_1 } = binding.feeds(slots, 2);
  expect([k0_0, k0_1]).toMatchObject([
    { type: 'float16', data: Uint16Array.of(1, 2, 3, 4, 5, 6, 7, 8), dims: [2, 2, 2] },
    { type: 'float16', data: new Uint16Array(), dims: [0, 2, 2] },
  ]);
  expect(binding.outputs(slots).nk0_0).toMatchObject({ type: 'float16', data: Uint16Array.of(5, 6, 7, 8) });
  expect(binding.outputs(slots).nk0_0?.data.buffer).toBe(cache.keys[0]?.buffer);
});

test('a cache grows by a quarter, up to its limit, and keeps its rows', () => {
  const cache = new SequenceCache(2, 4, 200);
  const rows = (count: number, value: number) => [0, 1].map((layer) => new Float32Array(count * 4).fill(value + layer));
  cache.prepare(0, 60);
  cache.append(Array(60).fill(1), { keys: rows(60, 1), values: rows(60, 5) }, 0);
  expect(cache.bytes).toBe(64 * 2 * 2 * 4 * 4);
  cache.prepare(50, 20);
  cache.append(Array(20).fill(2), { keys: rows(20, 2), values: rows(20, 6) }, 0);
  expect([cache.rows, cache.bytes]).toEqual([70, 80 * 2 * 2 * 4 * 4]);
  const keys = cache.view('keys', 1, 0, 70);
  expect([keys.length, keys[49 * 4], keys[50 * 4]]).toEqual([280, 2, 3]);
  expect([cache.tokens[49], cache.tokens[50]]).toEqual([1, 2]);
  cache.prepare(70, 130);
  expect(cache.bytes).toBe(200 * 2 * 2 * 4 * 4);
  expect(() => cache.prepare(71, 1)).toThrow('row 71 must be at most the number of rows, 70');
});

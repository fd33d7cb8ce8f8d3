import { uniformsPerPosition } from '@ptp/protocol/sampling-params';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import vectors from '../../../test/vectors/tree.json' with { type: 'json' };
import { uniforms } from '../../src/sampling/uniforms.ts';
import { pickTree, shape } from '../../src/testing/reference-sampler.ts';

const off = { temperature: 1, topK: 0, topP: 1 };
/** Returns logits with the given softmax. */
const logitsOf = (...probabilities: number[]) => Float32Array.from(probabilities, Math.log);
const LARGEST_U = 1 - 2 ** -24;

test.each([
  ['cdf', 1, 1],
  ['cdf', 2048, 1],
  ['tree', 1, 1],
  ['tree', 2, 1],
  ['tree', 3, 2],
  ['tree', 4, 2],
  ['tree', 257, 9],
  ['tree', 2048, 11],
  ['tree', 2049, 12],
  ['tree', 50257, 16],
] as const)('%s over %i tokens takes %i uniforms', (kind, vocabulary, count) => {
  expect(uniformsPerPosition(kind, vocabulary)).toBe(count);
});

describe('pickTree', () => {
  test.each(vectors.cases)(
    'shared vector %#: token $token',
    ({ logits, temperature, top_k, top_p, u, kept, token }) => {
      const shaped = shape(Float32Array.from(logits), { temperature, topK: top_k, topP: top_p });
      expect(shaped.kept).toEqual(kept);
      expect(pickTree(u, shaped)).toBe(token);
    },
  );

  test('the shared vectors cover each kind of shaping, both extremes, and vocabularies with and without gaps', () => {
    const some = (holds: (entry: (typeof vectors.cases)[number]) => boolean) => vectors.cases.filter(holds).length;
    expect(some((c) => c.temperature === 0)).toBeGreaterThan(10);
    expect(some((c) => c.top_k > 0 && c.top_p < 1)).toBeGreaterThan(10);
    expect(some((c) => c.u.includes(0))).toBeGreaterThan(10);
    expect(some((c) => c.u.includes(LARGEST_U))).toBeGreaterThan(10);
    expect(some((c) => c.logits.length > 1 && c.logits.length === 2 ** c.u.length)).toBeGreaterThan(10);
    expect(some((c) => c.logits.length < 2 ** c.u.length)).toBeGreaterThan(10);
    expect(some((c) => c.u.length > 7)).toBeGreaterThan(5);
    expect(some((c) => c.kept.length > 2 && c.token !== c.kept[0] && c.token !== c.kept.at(-1))).toBeGreaterThan(10);
  });

  test('decides the highest bit first: left if u is below the share of the left half, else right', () => {
    // The left child has 3/8, split into 1/3 and 2/3. The right child has 5/8, split into 2/5 and 3/5.
    const shaped = { probabilities: Float32Array.of(0.125, 0.25, 0.25, 0.375), kept: [0, 1, 2, 3] };
    expect([0, 0.374, 0.375, 0.999].map((u) => pickTree([u, 0], shaped))).toEqual([0, 0, 2, 2]);
    expect([0, 0.333, 0.334, 0.999].map((u) => pickTree([0, u], shaped))).toEqual([0, 0, 1, 1]);
    expect([0, 0.399, 0.401, 0.999].map((u) => pickTree([0.5, u], shaped))).toEqual([2, 2, 3, 3]);
  });

  test('accepts probabilities with any sum: only their ratios count', () => {
    const shaped = { probabilities: Float32Array.of(1, 2, 2, 3), kept: [0, 1, 2, 3] };
    expect([0.374, 0.375].map((u) => pickTree([u, 0], shaped))).toEqual([0, 2]);
  });

  /** Generates logits, some excluded or far below the others, and uniforms that are often extreme. */
  const anyCase = fc.integer({ min: 1, max: 40 }).chain((size) => {
    const logit = fc.oneof(
      fc.double({ min: -10, max: 10, noNaN: true }),
      fc.double({ min: -110, max: -85, noNaN: true }),
      fc.constant(Number.NEGATIVE_INFINITY),
    );
    const u = fc.oneof(
      fc.nat(2 ** 24 - 1).map((word) => word * 2 ** -24),
      fc.constantFrom(0, LARGEST_U),
    );
    const depth = uniformsPerPosition('tree', size);
    return fc.record({
      logits: fc.array(logit, { minLength: size, maxLength: size }).filter((values) => values.some(Number.isFinite)),
      u: fc.array(u, { minLength: depth, maxLength: depth }),
      topK: fc.nat(size),
      topP: fc.constantFrom(1, 0.9, 0.3),
      temperature: fc.constantFrom(0, 0.5, 1, 2),
    });
  });

  test('never picks a token that is not kept, whatever the uniforms', () => {
    fc.assert(
      fc.property(anyCase, ({ logits, u, ...params }) => {
        const shaped = shape(Float32Array.from(logits), params);
        expect(shaped.kept).toContain(pickTree(u, shaped));
      }),
      { numRuns: 2000 },
    );
  });

  test('picks the first kept token with u = 0 everywhere and the last with the largest u, if none is improbable', () => {
    const sizes = fc.integer({ min: 1, max: 40 });
    fc.assert(
      fc.property(sizes, fc.nat(2 ** 20), (size, salt) => {
        const logits = Float32Array.from(uniforms(BigInt(salt), 0, size), (u) => 4 * u);
        const shaped = shape(logits, { ...off, topK: 1 + (salt % size) });
        const all = (u: number) => new Float32Array(uniformsPerPosition('tree', size)).fill(u);
        expect(pickTree(all(0), shaped)).toBe(shaped.kept[0]);
        expect(pickTree(all(LARGEST_U), shaped)).toBe(shaped.kept.at(-1));
      }),
    );
  });

  test('does not enter a half whose sum vanishes, even if the product with u rounds up to the other', () => {
    const shaped = { probabilities: Float32Array.of(2 ** -149, 0, 0), kept: [0] };
    expect(pickTree([LARGEST_U, LARGEST_U], shaped)).toBe(0);
  });

  test.each([
    ['a power of two', [0.05, 0.3, 0.1, 0.15, 0.02, 0.18, 0.12, 0.08]],
    ['not a power of two', [0.05, 0.4, 0.1, 0.3, 0.15]],
  ])('draws tokens with their probabilities: a vocabulary that is %s', (_, target) => {
    const shaped = shape(logitsOf(...target), off);
    const n = 100_000;
    const depth = uniformsPerPosition('tree', target.length);
    const counts = new Array<number>(target.length).fill(0);
    const u = uniforms(3n, 0, n, depth);
    for (let i = 0; i < n; i++) {
      const token = pickTree(u.subarray(i * depth, (i + 1) * depth), shaped);
      counts[token] = (counts[token] as number) + 1;
    }
    // Pearson's chi-squared with 7 degrees of freedom exceeds 29.9 once in 10,000 times; with 4, 23.5.
    const chiSquared = target.reduce((sum, p, id) => sum + ((counts[id] as number) - n * p) ** 2 / (n * p), 0);
    expect(chiSquared).toBeLessThan(target.length === 8 ? 29.9 : 23.5);
  });

  test.each([1, 3])('rejects %i uniforms for a tree of two levels', (count) => {
    const shaped = shape(new Float32Array(4), off);
    expect(() => pickTree(new Float32Array(count), shaped)).toThrow(
      `a pick among 4 tokens needs 2 uniforms, got ${count}`,
    );
  });
});

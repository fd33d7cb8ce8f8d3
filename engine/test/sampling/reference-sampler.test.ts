import { describe, expect, test } from 'vitest';
import vectors from '../../../test/vectors/sampling.json' with { type: 'json' };
import { uniforms } from '../../src/sampling/uniforms.ts';
import { pick, shape } from '../../src/testing/reference-sampler.ts';

const off = { temperature: 1, topK: 0, topP: 1 };
/** Returns logits with the given softmax. */
const logitsOf = (...probabilities: number[]) => Float32Array.from(probabilities, Math.log);
const SMALLEST_POSITIVE_U = 2 ** -24;
const LARGEST_U = 1 - 2 ** -24;

describe('shape and pick', () => {
  test.each(vectors.cases)(
    'shared vector %#: token $token',
    ({ logits, temperature, top_k, top_p, u, kept, token }) => {
      const shaped = shape(Float32Array.from(logits), { temperature, topK: top_k, topP: top_p });
      expect(shaped.kept).toEqual(kept);
      expect(pick(u, shaped)).toBe(token);
    },
  );

  test('the shared vectors cover each kind of shaping, ties and every part of the vocabulary', () => {
    const some = (holds: (entry: (typeof vectors.cases)[number]) => boolean) => vectors.cases.filter(holds).length;
    expect(some((c) => c.temperature === 0)).toBeGreaterThan(10);
    expect(some((c) => c.temperature > 0 && c.top_k > 0 && c.kept.length === c.top_k)).toBeGreaterThan(10);
    expect(some((c) => c.top_p < 1 && c.kept.length > 1)).toBeGreaterThan(10);
    expect(some((c) => c.top_k > 0 && c.top_p < 1)).toBeGreaterThan(10);
    expect(some((c) => new Set(c.logits).size < c.logits.length)).toBeGreaterThan(10);
    expect(some((c) => c.kept.length > 2 && c.token !== c.kept[0] && c.token !== c.kept.at(-1))).toBeGreaterThan(10);
  });
});

describe('shape', () => {
  test('divides by the temperature before the softmax', () => {
    const { probabilities } = shape(logitsOf(0.2, 0.8), { ...off, temperature: 0.5 });
    expect(probabilities[0]).toBeCloseTo(0.04 / 0.68, 6);
    expect(probabilities[1]).toBeCloseTo(0.64 / 0.68, 6);
  });

  test('applies top-p after top-k, and renormalises', () => {
    // Within the top 3, the two likeliest tokens have 0.65 / 0.85 = 0.76, so top-p 0.75 keeps two; without top-k it
    // would keep three.
    const { kept, probabilities } = shape(logitsOf(0.15, 0.4, 0.2, 0.25), { ...off, topK: 3, topP: 0.75 });
    expect(kept).toEqual([1, 3]);
    expect(probabilities[1]).toBeCloseTo(0.4 / 0.65, 6);
    expect(probabilities[3]).toBeCloseTo(0.25 / 0.65, 6);
  });

  test('keeps the lower id on ties', () => {
    const equals = Float32Array.of(1, 3, 3, 3);
    expect(shape(equals, { ...off, topK: 2 }).kept).toEqual([1, 2]);
    expect(shape(equals, { ...off, temperature: 0 }).kept).toEqual([1]);
    expect(shape(equals, { ...off, topP: 1e-6 }).kept).toEqual([1]);
  });

  test('with top-p 1 keeps every token of a large, flat vocabulary, however the float32 sum rounds', () => {
    const { kept } = shape(new Float32Array(50_000), off);
    expect(kept).toHaveLength(50_000);
  });

  test('never keeps an excluded token', () => {
    expect(shape(Float32Array.of(0, Number.NEGATIVE_INFINITY, -200), off).kept).toEqual([0]);
  });

  test.each([
    [[1, Number.NaN], 'logit of token 1 is NaN'],
    [[Number.NaN, 1], 'logit of token 0 is NaN'],
    [[Number.NEGATIVE_INFINITY, Number.NEGATIVE_INFINITY], 'the largest logit is -Infinity'],
    [[0, Number.POSITIVE_INFINITY], 'the largest logit is Infinity'],
  ])('rejects logits %j', (logits, message) => {
    expect(() => shape(Float32Array.from(logits), off)).toThrow(message);
  });
});

describe('pick', () => {
  test('assigns to a token the half-open interval from F of the previous token to its own F', () => {
    const shaped = shape(new Float32Array(4), off);
    expect([0, 0.25 - SMALLEST_POSITIVE_U, 0.25, 0.5, 0.75, LARGEST_U].map((u) => pick(u, shaped))).toEqual([
      0, 0, 1, 2, 3, 3,
    ]);
  });

  test('skips tokens that are not kept', () => {
    const shaped = shape(logitsOf(0.1, 0.5, 0.1, 0.3), { ...off, topK: 2 });
    expect(pick(0, shaped)).toBe(1);
    expect(pick(LARGEST_U, shaped)).toBe(3);
  });

  test('picks the last kept token if u is so close to 1 that u Z rounds up to Z', () => {
    const shaped = { probabilities: Float32Array.of(0.5, 0.5 + 2 ** -23, 0), kept: [0, 1] };
    expect(pick(1 - 2 ** -25, shaped)).toBe(1);
  });

  test('finds a token for the largest u of uniforms.ts with every Z that rounding can give', () => {
    for (let steps = -64; steps <= 64; steps++) {
      const total = Math.fround(1 + steps * 2 ** -24);
      expect(Math.fround(LARGEST_U * total)).toBeLessThan(total);
    }
  });

  test('draws tokens with their probabilities', () => {
    const target = [0.05, 0.4, 0.1, 0.3, 0.15];
    const shaped = shape(logitsOf(...target), off);
    const n = 100_000;
    const counts = new Array<number>(target.length).fill(0);
    for (const u of uniforms(3n, 0, n)) {
      const token = pick(u, shaped);
      counts[token] = (counts[token] as number) + 1;
    }
    // Pearson's chi-squared with 4 degrees of freedom exceeds 23.5 once in 10,000 times.
    const chiSquared = target.reduce((sum, p, id) => sum + ((counts[id] as number) - n * p) ** 2 / (n * p), 0);
    expect(chiSquared).toBeLessThan(23.5);
  });
});

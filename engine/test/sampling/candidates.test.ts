import type { SamplingParams } from '@ptp/protocol/sampling-params';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { adjustCandidates, type Candidates, pickTreeSparse, shapeCandidates } from '../../src/sampling/candidates.ts';
import { uniforms } from '../../src/sampling/uniforms.ts';
import { adjusted, pickTree, shape } from '../../src/testing/reference-sampler.ts';

const V = 37;
const DEPTH = 6;
// Few distinct values, so that ties occur.
const anyLogits = fc
  .array(fc.integer({ min: -8, max: 8 }), { minLength: V, maxLength: V })
  .map((values) => Float32Array.from(values, (n) => n / 2));
const anySampling = fc.record({
  temperature: fc.constantFrom(0, 0.3, 0.7, 1, 1.9),
  topK: fc.constantFrom(0, 1, 3, 10, V),
  topP: fc.constantFrom(0.1, 0.5, 0.9, 1),
  minP: fc.constantFrom(0, 0.05, 0.5),
});

/** Returns the `top` largest logits and the logits of the listed ids, as an engine reads them. */
function candidates(logits: Float32Array, top: number, named: readonly number[] = []): Candidates {
  const ranked = [...logits.keys()].sort((a, b) => (logits[b] as number) - (logits[a] as number));
  const ids = Int32Array.from(new Set([...ranked.slice(0, top), ...named]));
  const floor = top >= logits.length ? Number.NEGATIVE_INFINITY : (logits[ranked[top - 1] as number] as number);
  return { ids, logits: Float32Array.from(ids, (id) => logits[id] as number), floor, vocabulary: logits.length };
}

/** Returns true for probabilities that an exact distribution must contain. */
const visible = (probability = 0) => probability > 2 ** -24;

function visibleIds(logits: Float32Array, sampling: SamplingParams): number[] {
  const { kept, probabilities } = shape(logits, sampling);
  return kept.filter((id) => visible(probabilities[id]));
}

describe('candidates', () => {
  test('candidates for the whole vocabulary give the distribution and the picks of the reference sampler, bit for bit', () => {
    fc.assert(
      fc.property(anyLogits, anySampling, fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }), (logits, sampling, seed) => {
        const expected = shape(logits, sampling);
        const shaped = shapeCandidates(candidates(logits, V), sampling);
        expect(shaped?.ids).toEqual(Int32Array.from(expected.kept));
        expect(shaped?.probabilities).toEqual(
          Float32Array.from(expected.kept, (id) => expected.probabilities[id] ?? 0),
        );
        const u = uniforms(seed, 0, 1, DEPTH);
        expect(shaped && pickTreeSparse(u, shaped, V)).toBe(pickTree(u, expected));
      }),
    );
  });

  test('candidates for a part of the vocabulary give the same distribution whenever they report that it is exact', () => {
    let exact = 0;
    const limits = fc.integer({ min: 1, max: V });
    fc.assert(
      fc.property(anyLogits, anySampling, limits, (logits, sampling, top) => {
        const shaped = shapeCandidates(candidates(logits, top), sampling);
        if (!shaped?.exact) return;
        exact++;
        expect([...shaped.ids].filter((_, i) => visible(shaped.probabilities[i]))).toEqual(
          visibleIds(logits, sampling),
        );
      }),
    );
    expect(exact).toBeGreaterThan(10);
  });

  test('the sum of the omitted probabilities decides more distributions, and none wrongly', () => {
    let [known, unknown] = [0, 0];
    const limits = fc.integer({ min: 1, max: V });
    const biased = fc.record({ id: fc.nat(V - 1), bias: fc.constantFrom(0, -3) });
    fc.assert(
      fc.property(anyLogits, anySampling, limits, biased, (logits, sampling, top, { id, bias }) => {
        const read = candidates(logits, top);
        const omitted = logits.reduce((sum, logit, i) => (read.ids.includes(i) ? sum : sum + Math.exp(logit)), 0);
        const limited = { ...read, omitted: { least: omitted * (1 - 1e-6), most: omitted * (1 + 1e-6) } };
        const none = new Int32Array();
        const adjustment = { scaled: none, scale: 1, biased: Int32Array.of(id), biases: Float32Array.of(bias) };
        const shaped = shapeCandidates(adjustCandidates(limited, adjustment), sampling);
        if (shapeCandidates(adjustCandidates(read, adjustment), sampling)?.exact) unknown++;
        if (!shaped?.exact) return;
        known++;
        const expected = visibleIds(adjusted(logits, adjustment), sampling);
        expect([...shaped.ids].filter((_, i) => visible(shaped.probabilities[i]))).toEqual(expected);
      }),
      { numRuns: 1000 },
    );
    expect(known).toBeGreaterThan(unknown);
  });

  test('adjustments equal those of the reference, also if they lift a listed token above the floor', () => {
    const none = new Int32Array();
    const biased = fc.record({ id: fc.nat(V - 1), bias: fc.constantFrom(-100, -1, 2, 100) });
    fc.assert(
      fc.property(anyLogits, anySampling, biased, (logits, sampling, { id, bias }) => {
        const adjustment = { scaled: none, scale: 1, biased: Int32Array.of(id), biases: Float32Array.of(bias) };
        const shaped = shapeCandidates(adjustCandidates(candidates(logits, 12, [id]), adjustment), sampling);
        if (!shaped?.exact) return;
        const expected = visibleIds(adjusted(logits, adjustment), sampling);
        expect([...shaped.ids].filter((_, i) => visible(shaped.probabilities[i]))).toEqual(expected);
      }),
    );
  });
});

import fc from 'fast-check';
import { expect, test } from 'vitest';
import { outcomeChances, planBranches } from '../src/branch-plan.ts';

const confidences = fc.array(fc.double({ min: 0, max: 1, noNaN: true }), { maxLength: 8 });
/** Rising, concave curves, like the expected number of correct tokens by the length of a branch. */
const curve = fc
  .array(fc.double({ min: 0, max: 1, noNaN: true }), { minLength: 2, maxLength: 10 })
  .map((gains) => gains.sort((a, b) => b - a).map((_, b) => sum(gains.slice(0, b))));

const sum = (values: number[]) => values.reduce((a, b) => a + b, 0);

test('the chances of all outcomes sum to 1', () => {
  fc.assert(fc.property(confidences, (c) => Math.abs(sum(outcomeChances(c)) - 1) < 1e-9));
  expect(outcomeChances([0.5, 0.5])).toEqual([0.5, 0.25, 0.25]);
});

test('branches stay within budget and length, and have more than a first token where possible', () => {
  fc.assert(
    fc.property(
      confidences,
      curve,
      fc.integer({ min: 1, max: 40 }),
      fc.integer({ min: 1, max: 9 }),
      (c, h, budget, max) => {
        const lengths = planBranches(c, { whole: h, afterMiss: h }, budget, max);
        expect(lengths).toHaveLength(c.length + 1);
        expect(sum(lengths)).toBeLessThanOrEqual(budget);
        expect(Math.max(...lengths)).toBeLessThanOrEqual(max);
        if (budget >= 2 && max >= 2) expect(lengths).not.toContain(1);
      },
    ),
  );
});

/** Returns the expected number of tokens that a plan saves, computed from the definition. */
function value(lengths: number[], c: number[], h: number[]): number {
  const chances = outcomeChances(c);
  return sum(lengths.map((b, m) => (b === 0 ? 0 : (chances[m] as number) * ((h[b] as number) - (h[1] as number)))));
}

/** Returns the value of the best plan, found by exhaustive search. */
function best(c: number[], h: number[], budget: number, max: number): number {
  const plans = (outcomes: number, left: number): number[][] =>
    outcomes === 0
      ? [[]]
      : Array.from({ length: Math.min(left, max) + 1 }, (_, b) => b)
          .filter((b) => b !== 1)
          .flatMap((b) => plans(outcomes - 1, left - b).map((rest) => [b, ...rest]));
  return Math.max(...plans(c.length + 1, budget).map((lengths) => value(lengths, c, h)));
}

test('greedy comes close to the best plan', () => {
  const h = [0, 0.7, 1.2, 1.55, 1.8, 1.95];
  for (const c of [[0.9, 0.8, 0.5], [0.2, 0.9], [], [0.6, 0.6, 0.6]]) {
    for (const budget of [2, 5, 8, 12]) {
      const found = value(planBranches(c, { whole: h, afterMiss: h }, budget, 5), c, h);
      expect(found).toBeGreaterThanOrEqual(0.85 * best(c, h, budget, 5));
    }
  }
});

test('for a certain block the budget goes to the continuation of the whole block', () => {
  const h = [0, 0.8, 1.4, 1.8];
  expect(planBranches([1, 1, 1], { whole: h, afterMiss: h }, 3, 3)).toEqual([0, 0, 0, 3]);
});

test('a budget of one goes to the likeliest outcome', () => {
  const h = [0, 0.8, 1.4];
  expect(planBranches([0.1], { whole: h, afterMiss: h }, 1, 8)).toEqual([1, 0]);
});

test('a branch after a wrong token is worth less if its curve is lower', () => {
  const whole = [0, 0.8, 1.4, 1.6];
  expect(planBranches([0.5], { whole, afterMiss: whole }, 4, 3)).toEqual([2, 2]);
  expect(planBranches([0.5], { whole, afterMiss: [0, 0.1, 0.15, 0.2] }, 3, 3)).toEqual([0, 3]);
});

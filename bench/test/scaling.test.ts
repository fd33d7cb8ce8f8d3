import { describe, expect, it } from 'vitest';
import { Random } from '../random.ts';
import { Clock } from '../scaling/clock.ts';
import { type CostCurve, runMicros } from '../scaling/costs.ts';
import { Replica } from '../scaling/replica.ts';
import { type Scenario, simulate } from '../scaling/simulate.ts';
import { BASE } from '../scaling/sweeps.ts';

/** Costs without noise and without network delay. Run times do not depend on the context. */
const verifying: CostCurve = { overhead: 1000, weights: 9000, perToken: 10, perContextToken: 0 };
const drafting: CostCurve = { overhead: 500, weights: 3500, perToken: 1, perContextToken: 0 };
const still: Scenario = {
  ...BASE,
  delay: 0,
  verifier: { ...BASE.verifier, curve: verifying, jitter: 0 },
  drafter: { ...BASE.drafter, curve: drafting, jitter: 0 },
  prompt: [500, 500],
  output: [4000, 4000],
  settle: 0,
  counted: 5_000_000,
};
const always = { chance: 1, hits: [1, 1] } as const;
const mode = (chosen: 'plain' | 'sequential' | 'overlap' | 'auto') => ({ limits: { ...BASE.limits, mode: chosen } });
const full = (chosen: 'sequential' | 'overlap', length: number) => ({
  limits: { length, budget: 64, mode: chosen },
  controller: false,
});

describe('clock', () => {
  it('runs events in the order of their times, and simultaneous events in the order in which they were scheduled', () => {
    const clock = new Clock();
    const random = new Random(7);
    const set = Array.from({ length: 500 }, (_, i) => ({ at: Math.floor(100 * random.next()), i }));
    const seen: typeof set = [];
    for (const event of set) clock.at(event.at, () => seen.push({ ...event, at: clock.now }));
    clock.runUntil(100);
    expect(seen).toEqual(set.toSorted((a, b) => a.at - b.at || a.i - b.i));
    expect(clock.now).toBe(100);
  });

  it('leaves events that are due at the end or later', () => {
    const clock = new Clock();
    let happened = 0;
    for (const at of [9, 10, 11]) clock.at(at, () => happened++);
    clock.runUntil(10);
    expect(happened).toBe(1);
  });
});

describe('replica', () => {
  it('batches the jobs that wait when a run ends, within its limits', () => {
    const clock = new Clock();
    const replica = new Replica(clock, { ...still.verifier, slots: 3, tokens: 8 }, new Random(1));
    const ends: number[] = [];
    const submit = (tokens: number) => replica.submit({ tokens, context: 0, done: () => ends.push(clock.now) });
    submit(1);
    clock.at(5, () => [1, 1, 1, 1, 7, 2].forEach(submit));
    clock.runUntil(1e6);
    const run = runMicros(verifying, 1, 0);
    // The runs are one job alone, three jobs (the slot limit), two jobs with 1 + 7 = 8 tokens (the token limit), and
    // the last job.
    expect(ends).toEqual([run, 2 * run, 2 * run, 2 * run, 3 * run, 3 * run, 4 * run]);
    expect(replica.work).toMatchObject({ runs: 4, jobs: 7, tokens: 14 });
  });
});

describe('simulation', () => {
  it('takes one run per token of a single sequence without drafts', () => {
    const { millisPerToken, tokensPerStep, modes } = simulate({ ...still, ...mode('plain') });
    expect(tokensPerStep).toBe(1);
    expect(modes.plain).toBe(1);
    // A sequence starts within the first 50 ms.
    expect(millisPerToken).toBeGreaterThanOrEqual(10);
    expect(millisPerToken).toBeLessThan(10.2);
  });

  it('takes max(draft, verify) for a block and one more token if all drafts are correct', () => {
    const { millisPerToken, tokensPerStep } = simulate({ ...still, ...full('overlap', 4), quality: always });
    expect(tokensPerStep).toBeCloseTo(5, 1);
    expect(millisPerToken).toBeGreaterThanOrEqual(2);
    expect(millisPerToken).toBeLessThan(2.1);
  });

  it('takes draft + verify if drafting comes first', () => {
    const { millisPerToken } = simulate({ ...still, ...full('sequential', 4), quality: always });
    expect(millisPerToken).toBeGreaterThanOrEqual(14 / 5);
    expect(millisPerToken).toBeLessThan((1.03 * 14) / 5);
  });

  it('commits the number of tokens that the geometric series predicts', () => {
    const chance = 0.6;
    const { tokensPerStep, steps } = simulate({
      ...still,
      ...full('sequential', 4),
      counted: 60_000_000,
      quality: { chance, hits: [0, 0] },
    });
    const expected = (1 - chance ** 5) / (1 - chance);
    expect(steps).toBeGreaterThan(3000);
    expect(Math.abs(tokensPerStep - expected)).toBeLessThan(0.08);
  });

  it('gives the same result for the same seed, and a different one for a different seed', () => {
    const some = { ...BASE, ...mode('auto'), sequences: 20, settle: 200_000, counted: 400_000 };
    expect(simulate(some)).toEqual(simulate(some));
    expect(simulate({ ...some, seed: 2 }).tokens).not.toBe(simulate(some).tokens);
  });

  it('waits for one network round trip per step if calls overlap, for two if they do not', () => {
    const delay = 20_000;
    const overlap = simulate({ ...still, ...full('overlap', 4), delay, quality: always });
    const sequential = simulate({ ...still, ...full('sequential', 4), delay, quality: always });
    expect(overlap.millisPerToken).toBeCloseTo((10 + 40) / 5, 0);
    expect(sequential.millisPerToken).toBeCloseTo((10 + 40 + 4 + 40) / 5, 0);
  });

  describe('with a drafter that checks blocks', () => {
    const delay = 20_000;
    const checking = { ...always, checks: 1 };
    const sending = (ahead: number) => {
      const limits = { length: 4, budget: 64, mode: 'overlap' as const, ahead };
      return { ...still, controller: false, delay, drafterDelay: 0, quality: checking, limits };
    };

    it('hides the network delay if enough steps are sent ahead, and part of it if few are', () => {
      const [none, one, many] = [0, 1, 8].map((ahead) => simulate(sending(ahead)));
      expect(none?.ahead).toBe(0);
      expect(none?.millisPerToken).toBeCloseTo((10 + 40) / 5, 0);
      // Two steps per round trip.
      expect(one?.millisPerToken).toBeCloseTo((10 + 40) / 2 / 5, 0);
      // The verifier is always busy.
      expect(many?.millisPerToken).toBeLessThan(1.1 * (10 / 5));
      expect(many?.ahead).toBeGreaterThan(0.95);
      expect(many?.verifier.busy).toBeGreaterThan(0.95);
    });

    it('does not run steps that were sent for an outcome that did not occur', () => {
      const wrong = { ...checking, chance: 0.5, checks: 0.7 };
      const { steps, ahead, drafted, verifier } = simulate({ ...sending(8), quality: wrong, counted: 60_000_000 });
      // Each token of a step is predicted with probability 0.7. After an unexpected outcome, the next step is not sent
      // ahead.
      expect(ahead).toBeGreaterThan(0.3);
      expect(ahead).toBeLessThan(0.7);
      // Each run computes one token more than was drafted. The beginning and the end may differ.
      expect(Math.abs(verifier.tokens - (steps + drafted))).toBeLessThan(30);
    });
  });

  it('verifies fewer tokens when the batch is so full that every extra token takes time', () => {
    const many = { ...BASE, ...mode('auto'), sequences: 128, settle: 8_000_000, counted: 4_000_000 };
    const few = simulate({ ...many, sequences: 4 });
    const full = simulate(many);
    expect(few.drafted / few.steps).toBeGreaterThan(6);
    expect(full.drafted / full.steps).toBeLessThan(4);
    const plain = simulate({ ...many, ...mode('plain') });
    expect(full.tokensPerSecond).toBeGreaterThan(1.8 * plain.tokensPerSecond);
  });

  it('stops drafting when each token costs as much as a whole run', () => {
    const dear = { ...still.verifier, curve: { ...verifying, weights: 0, perToken: 9000 } };
    const { modes, drafted, steps } = simulate({
      ...still,
      ...mode('auto'),
      verifier: dear,
      quality: { chance: 0.3, hits: [0.3, 0.3] },
      settle: 10_000_000,
      counted: 10_000_000,
    });
    expect(modes.plain).toBeGreaterThan(0.8);
    expect(drafted / steps).toBeLessThan(0.5);
  });
});

import { describe, expect, test } from 'vitest';
import { Controller } from '../../src/decode/controller.ts';
import { VerifyCost } from '../../src/decode/cost-model.ts';
import { Measurements } from '../../src/decode/measurements.ts';
import { type DraftLimits, EMPTY, MODES, type Mode } from '../../src/decode/types.ts';
import {
  type Machine,
  noisy,
  oneCore,
  poorDrafts,
  random as randomNumbers,
  type SimulatedStep,
  simulate,
  smallTarget,
  speed,
  take,
  twoCores,
  twoDevices,
} from '../testing/simulated-machine.ts';

const limits: DraftLimits = { length: 8, budget: 16, mode: 'auto' };

/** Returns the tokens per millisecond if the mode is fixed. */
function speedIn(machine: Machine, mode: Mode): number {
  return speed(
    take(
      simulate(() => machine, { ...limits, mode }),
      4000,
    ).slice(1000),
  );
}

const share = (steps: readonly SimulatedStep[], mode: Mode): number =>
  steps.filter((step) => step.mode === mode).length / steps.length;

describe('the mode', () => {
  for (const [name, machine, best] of [
    ['overlaps where drafter and verifier run on separate devices', twoDevices, 'overlap'],
    ['overlaps on two cores', twoCores, 'overlap'],
    ['drafts first where both share one core', oneCore, 'sequential'],
    ['does not draft when drafts are of no use', poorDrafts, 'plain'],
    ['does not draft where verifying is as cheap as drafting', smallTarget, 'plain'],
  ] as const) {
    test(name, () => {
      const steps = take(
        simulate(() => machine, limits),
        4000,
      );
      // Modes of nearly equal speed take long to distinguish.
      expect(share(steps.slice(2000), best)).toBeGreaterThan(0.9);
      const speeds = MODES.map((mode) => speedIn(machine, mode));
      expect(speed(steps.slice(100))).toBeGreaterThan(0.97 * Math.max(...speeds));
    });
  }

  test('follows a changing machine without oscillating', () => {
    let machine = twoDevices;
    const steps = simulate(() => machine, limits);
    take(steps, 1000);
    machine = poorDrafts;
    take(steps, 1000);
    const after = take(steps, 2000);
    expect(speed(after)).toBeGreaterThan(0.93 * speedIn(poorDrafts, 'plain'));
    const chosen = after.filter((step) => step.reason === 'fastest').map((step) => step.mode);
    expect(chosen.filter((mode, i) => i > 0 && mode !== chosen[i - 1]).length).toBeLessThan(2);
  });

  for (const [name, machine] of Object.entries({ twoCores, oneCore, twoDevices, poorDrafts, smallTarget })) {
    test(`is found in noise: ${name}`, () => {
      const total = (mode: Mode | 'auto') =>
        Array.from({ length: 8 }, (_, seed) => {
          const shared = noisy(machine, randomNumbers(seed + 100));
          const measured = new Measurements(limits.length);
          return speed(take(simulate(shared, { ...limits, mode }, measured, randomNumbers(seed)), 2000));
        }).reduce((a, b) => a + b);
      expect(total('auto') / Math.max(...MODES.map(total))).toBeGreaterThan(0.95);
    });
  }

  test('trials are cheap: slower modes are tried less often', () => {
    const trials = (machine: Machine, mode: Mode) =>
      take(
        simulate(() => machine, limits),
        4000,
      )
        .slice(500)
        .filter((step) => step.mode === mode && step.reason === 'trial').length;
    // On two devices, plain decoding has a third of the speed of overlap mode, and sequential mode nearly the same
    // speed.
    expect(trials(twoDevices, 'plain')).toBeLessThan(trials(twoDevices, 'sequential') / 2);
    expect(trials(twoDevices, 'plain')).toBeGreaterThan(0);
  });

  test('a sequence with failing drafts stops drafting while others continue', () => {
    const measured = new Measurements(limits.length);
    const usual = simulate(() => twoCores, limits, measured);
    take(usual, 300);
    const failing = take(
      simulate(() => poorDrafts, limits, measured),
      200,
    );
    expect(share(failing.slice(60), 'plain')).toBeGreaterThan(0.5);
    expect(share(take(usual, 200), 'plain')).toBeLessThan(0.1);
  });

  test('concurrent sequences try and choose the same mode', () => {
    const measured = new Measurements(limits.length);
    const sequences = Array.from({ length: 16 }, () => simulate(() => smallTarget, limits, measured));
    const rounds = Array.from({ length: 400 }, () => sequences.flatMap((steps) => take(steps, 1)));
    expect(share(rounds.slice(50).flat(), 'plain')).toBeGreaterThan(0.92);
  });

  test('follows the setting', () => {
    for (const mode of MODES) {
      const steps = take(
        simulate(() => twoCores, { ...limits, mode }),
        50,
      );
      expect(steps.every((step) => step.mode === mode && step.reason === 'setting')).toBe(true);
    }
  });
});

describe('the length of a block', () => {
  const lengths = (machine: Machine) =>
    take(
      simulate(() => machine, { ...limits, mode: 'overlap' }),
      600,
    )
      .slice(100)
      .map((step) => step.drafted)
      .filter((drafted) => drafted > 0);
  const mean = (values: readonly number[]) => values.reduce((a, b) => a + b, 0) / values.length;

  test('is the maximum if more tokens cost nothing', () => {
    expect(mean(lengths(twoDevices))).toBeGreaterThan(7.5);
  });

  test('is shorter if they do', () => {
    const steep: Machine = { ...twoCores, verify: (n) => 7000 + 3000 * n };
    expect(mean(lengths(steep))).toBeLessThan(5);
    expect(mean(lengths(steep))).toBeLessThan(mean(lengths(twoCores)));
  });

  test('leaves room for the token that every step commits', () => {
    const controller = new Controller({ ...limits, length: 5 }, new Measurements(5));
    expect([100, 6, 5, 2, 1, 0].map((wanted) => controller.room(wanted))).toEqual([5, 5, 4, 1, 0, 0]);
    controller.close();
  });
});

test('a missing block is redrafted only if that pays off', () => {
  const redrafts = (machine: Machine) => {
    const measured = new Measurements(limits.length);
    take(
      simulate(() => machine, { ...limits, mode: 'overlap' }, measured),
      500,
    );
    const controller = new Controller({ ...limits, mode: 'overlap' }, measured);
    // One trial in 16 happens regardless.
    return Array.from({ length: 16 }, () => controller.worthDrafting('overlap', 8, EMPTY)).filter(Boolean).length;
  };
  expect(redrafts(twoDevices)).toBe(16);
  expect(redrafts({ ...twoDevices, draft: () => 80_000 })).toBe(1);
});

test('the first two steps after a change of mode are not counted', () => {
  const measured = new Measurements(5);
  const controller = new Controller(limits, measured);
  const verify = { micros: 1, queueMicros: 0, runMicros: 1, batchSize: 1, drafted: 0 };
  const calls = { verify, draftMicros: 0, redraftMicros: 0 };
  const outcome = { block: EMPTY, accepted: 0, budget: 0, redraftLength: 0, ...calls };
  const observe = (mode: Mode, stepMicros: number, times: number) => {
    for (let i = 0; i < times; i++) controller.observe({ mode, stepMicros, ...outcome });
  };
  // The first steps of a process are not counted either.
  observe('plain', 9000, 2 + 6);
  expect(measured.modes.stats.plain.rate).toBe(0);
  observe('plain', 2000, 1);
  expect(measured.modes.stats.plain.rate).toBeCloseTo(1 / 2000);
  observe('overlap', 1000, 1);
  observe('plain', 9000, 2);
  expect(measured.modes.stats.plain.rate).toBeCloseTo(1 / 2000);
  observe('plain', 4000, 1);
  expect(measured.modes.stats.plain.rate).toBeLessThan(1 / 2900);
});

test('the cost of a token is measured per run, not per call', () => {
  const cost = new VerifyCost(8);
  const random = randomNumbers(3);
  for (let run = 0; run < 400; run++) {
    // 32 sequences with different block lengths share a run of 10 ms plus 50 us per token. Half of them first wait for
    // another run.
    const blocks = Array.from({ length: 32 }, () => Math.floor(9 * random()));
    const drafted = blocks.reduce((a, b) => a + b, 0) / 32;
    const runMicros = 10_000 + 50 * 32 * drafted;
    for (const i of blocks.keys()) {
      const queueMicros = i % 2 === 0 ? 0 : 16_400;
      cost.observe({ micros: queueMicros + runMicros + 300, queueMicros, runMicros, batchSize: 32, drafted });
    }
  }
  // A mean run takes 16.4 ms, and the mean wait is half a run.
  expect((cost.slope ?? 0) / (1.5 * 50 * 32)).toBeCloseTo(1, 1);
  expect(cost.at(4) / (300 + 1.5 * 16_400)).toBeCloseTo(1, 1);
});

test('runs that include a prefill do not affect the cost of a block', () => {
  const cost = new VerifyCost(8);
  const one = { queueMicros: 0, batchSize: 1 };
  for (let i = 0; i < 50; i++) {
    const drafted = i % 9;
    cost.observe({ ...one, micros: 1000 + 100 * drafted, runMicros: 1000 + 100 * drafted, drafted });
    cost.observe({ ...one, micros: 90_000, runMicros: 90_000, batchSize: 2, drafted: 64 });
  }
  expect(cost.slope).toBeCloseTo(100);
});

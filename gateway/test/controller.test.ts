import { describe, expect, test } from 'vitest';
import { Controller, type Mode, Pace } from '../src/controller.ts';

const limits = { length: 5, budget: 16, mode: 'auto' } as const;

/** What a step of each mode takes and brings on some machine. */
type Machine = Readonly<Record<Mode, { tokens: number; micros: number }>>;

/** Steps through `count` choices; returns how often each mode was chosen. */
function run(pace: Pace, machine: Machine, count: number): Record<Mode, number> {
  const chosen = { overlap: 0, sequential: 0, plain: 0 };
  for (let i = 0; i < count; i++) {
    const mode = pace.next();
    chosen[mode]++;
    pace.observe(mode, machine[mode].tokens, machine[mode].micros);
  }
  return chosen;
}

const ownCores: Machine = {
  overlap: { tokens: 1.9, micros: 4000 },
  sequential: { tokens: 2, micros: 6500 },
  plain: { tokens: 1, micros: 3500 },
};
const sharedCores: Machine = { ...ownCores, overlap: { tokens: 1.9, micros: 9000 } };
const poorDrafter: Machine = {
  overlap: { tokens: 1.1, micros: 5000 },
  sequential: { tokens: 1.1, micros: 6000 },
  plain: ownCores.plain,
};

describe('Pace', () => {
  for (const [name, machine, best] of [
    ['overlaps where both services have cores of their own', ownCores, 'overlap'],
    ['drafts first where they share them', sharedCores, 'sequential'],
    ['does not draft when drafts are of no use', poorDrafter, 'plain'],
  ] as const) {
    test(name, () => {
      const pace = new Pace();
      run(pace, machine, 40);
      expect(run(pace, machine, 600)[best]).toBeGreaterThan(560);
    });
  }

  test('notices that the machine has changed, and stays with what it found', () => {
    const pace = new Pace();
    run(pace, ownCores, 400);
    run(pace, poorDrafter, 3000);
    expect(run(pace, poorDrafter, 600).plain).toBeGreaterThan(560);
  });
});

describe('Controller', () => {
  test('a block leaves room for the token that every step commits', () => {
    const controller = new Controller(limits, new Pace());
    expect([100, 6, 5, 2, 1, 0].map((wanted) => controller.blockLength(wanted))).toEqual([5, 5, 4, 1, 0, 0]);
  });

  test('the first step after a change of mode teaches nothing', () => {
    const pace = new Pace();
    const controller = new Controller(limits, pace);
    controller.observe('overlap', 3, 1000);
    controller.observe('plain', 3, 1000);
    expect([pace.rate('overlap'), pace.rate('plain')]).toEqual([0, 0]);
    controller.observe('plain', 1, 2000);
    expect(pace.rate('plain')).toBeCloseTo(1 / 2000);
  });
});

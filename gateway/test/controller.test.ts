import { describe, expect, test } from 'vitest';
import { Controller } from '../src/controller.ts';

const limits = { length: 5, budget: 16 };

function taught(
  times: { draft: number; redraft: number; block: number; empty: number },
  tokens: { branch: number; redraft: number },
  hitRate: number,
) {
  const controller = new Controller(limits);
  const step = { draftMicros: times.draft, redraftMicros: 0, drafted: 5, verifyMicros: times.block };
  for (let i = 0; i < 60; i++) {
    controller.observe({ ...step, committed: tokens.branch });
    controller.observe({ ...step, redraftMicros: times.redraft, committed: tokens.redraft });
    controller.observe({ ...step, drafted: 0, verifyMicros: times.empty, committed: 1 });
    controller.observeBranch(i % 10 < hitRate * 10);
  }
  return controller;
}

describe('Controller', () => {
  test('a block leaves room for the token that every step commits', () => {
    const controller = new Controller(limits);
    expect([100, 6, 5, 2, 1, 0].map((wanted) => controller.blockLength(wanted))).toEqual([5, 5, 4, 1, 0, 0]);
  });

  test('drafts anew while nothing is measured yet', () => {
    expect(new Controller(limits).afterMiss()).toBe('redraft');
  });

  test('drafts anew when that is cheap beside what it brings', () => {
    const times = { draft: 2000, redraft: 1000, block: 8000, empty: 7000 };
    expect(taught(times, { branch: 2, redraft: 4 }, 0.5).afterMiss()).toBe('redraft');
  });

  test('goes on without a block when drafting takes longer than verifying', () => {
    const times = { draft: 6000, redraft: 6000, block: 2000, empty: 2000 };
    expect(taught(times, { branch: 1.9, redraft: 2 }, 0.9).afterMiss()).toBe('empty');
  });
});

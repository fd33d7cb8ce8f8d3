import { expect, test } from 'vitest';
import { DraftDeadline } from '../../src/clients/draft-deadline.ts';

/** Creates a deadline whose log records are collected. */
function deadline(timeoutMs: number | 'auto') {
  const records: unknown[] = [];
  const logger = { warn: (record: unknown) => records.push(record) } as never;
  return { records, deadline: new DraftDeadline({ timeoutMs, draftLength: 8, logger }) };
}

test('the timeout is the duration of the verify calls that a draft can save, within limits', () => {
  const { deadline: auto } = deadline('auto');
  expect(auto.milliseconds).toBe(10_000);
  auto.verified(20_000);
  expect(auto.milliseconds).toBe(500);
  for (let i = 0; i < 50; i++) auto.verified(200_000);
  expect(auto.milliseconds).toBeCloseTo(1600, -1);
  for (let i = 0; i < 50; i++) auto.verified(4_000_000);
  expect(auto.milliseconds).toBe(10_000);
  expect(auto.openingMs).toBe(500);
});

test('a timeout that is set does not change', () => {
  const { deadline: fixed } = deadline(300);
  fixed.verified(2_000_000);
  expect([fixed.milliseconds, fixed.openingMs]).toEqual([300, 300]);
});

test('late drafts are logged together, with the figures', () => {
  const { deadline: auto, records } = deadline('auto');
  auto.verified(90_000);
  auto.late(0);
  auto.arrived(910_400);
  for (let i = 1; i < 40; i++) auto.late(i * 1000);
  expect(records).toEqual([{ late: 1, timeout_ms: 720, verify_ms: 90 }]);
  auto.late(700_000);
  expect(records.slice(1)).toEqual([{ late: 40, timeout_ms: 720, verify_ms: 90, draft_ms: 910 }]);
});

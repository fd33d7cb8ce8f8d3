import { expect, test } from 'vitest';
import { Backoff } from '../src/backoff.ts';

test('doubles up to its limit, and starts again after a success', () => {
  const backoff = new Backoff(250, 1500);
  expect([backoff.delayMs, backoff.next(), backoff.next(), backoff.next(), backoff.next(), backoff.next()]).toEqual([
    250, 250, 500, 1000, 1500, 1500,
  ]);
  backoff.reset();
  expect(backoff.next()).toBe(250);
});

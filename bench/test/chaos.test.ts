import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import { expect, test } from 'vitest';
import { count, newTally } from '../chaos/clients.ts';
import { FAULT_NAMES } from '../chaos/faults/index.ts';
import { timeHeld } from '../chaos/loop-delay.ts';

test('`npm run chaos` lists the faults if --only selects none', async () => {
  const run = promisify(execFile)(process.execPath, ['bench/chaos/main.ts', '--only', 'enigne']);
  const error = `error: option '--only <text>' argument 'enigne' is invalid. It must be a part of the name of a fault:\n`;
  await expect(run).rejects.toMatchObject({ code: 1, stderr: `${error}${FAULT_NAMES.join('\n')}\n` });
  expect(FAULT_NAMES).toContain('engine hung for a while');
}, 60_000);

test('an error status is a failure, except those of an overloaded server and of one without a verifier', () => {
  const tally = newTally();
  for (const status of [429, 503, 503, 500, 400]) count({ status, message: `status ${status}` }, tally);
  count({ status: undefined, message: 'reset' }, tally);
  expect(tally).toMatchObject({ refused: { 429: 1, 503: 2 }, failed: 2, lost: 1 });
  expect(tally.errors).toEqual({ 'status 500': 1, 'status 400': 1, reset: 1 });
});

test('waiting for a core does not count as holding the event loop', () => {
  const at = (p999: number) => ({ p50: 0, p999, max: p999 });
  const delays = (delay: number, cpu: number) => ({ delay: at(delay), cpu: at(cpu) });
  expect(timeHeld(delays(400, 8))).toBe(8);
  expect(timeHeld(delays(400, 380))).toBe(380);
  expect(timeHeld(delays(400, 90), delays(60, 0))).toBe(30);
  expect(timeHeld(delays(50, 380), delays(60, 0))).toBe(0);
});

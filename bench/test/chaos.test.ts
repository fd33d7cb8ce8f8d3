import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import { expect, test } from 'vitest';
import { FAULT_NAMES } from '../chaos/faults.ts';

test('`npm run chaos` lists the faults if --only selects none', async () => {
  const run = promisify(execFile)(process.execPath, ['bench/chaos/main.ts', '--only', 'enigne']);
  const error = `error: option '--only <text>' argument 'enigne' is invalid. It must be a part of the name of a fault:\n`;
  await expect(run).rejects.toMatchObject({ code: 1, stderr: `${error}${FAULT_NAMES.join('\n')}\n` });
  expect(FAULT_NAMES).toContain('engine hung for a while');
}, 60_000);

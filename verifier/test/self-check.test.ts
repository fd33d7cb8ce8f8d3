import { mkdtemp, readdir, rm, writeFile } from 'node:fs/promises';
import { syncBuiltinESMExports } from 'node:module';
import os from 'node:os';
import { join } from 'node:path';
import { FakeTargetEngine } from '@ptp/engine/testing/fake-engine';
import type { EngineInfo } from '@ptp/engine/types';
import { pino } from 'pino';
import { Registry } from 'prom-client';
import { afterAll, beforeAll, expect, test, vi } from 'vitest';
import { KnownVerdict } from '../src/known-verdict.ts';
import { selfCheck } from '../src/self-check.ts';

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(os.tmpdir(), 'ptp-self-check-'));
});
afterAll(() => rm(folder, { recursive: true }));

/** Checks a fake engine. @returns the result and whether the engine ran */
async function check({
  caches,
  unsteady = false,
  budgetMs,
  ...changes
}: Partial<EngineInfo> & { caches?: string; unsteady?: boolean; budgetMs?: number }) {
  const engine = new FakeTargetEngine();
  let runs = 0;
  const run = engine.run.bind(engine);
  engine.run = async (slots) => {
    const result = await run(slots);
    if (unsteady) for (const output of result.outputs) output.logProbabilities.fill(runs);
    runs++;
    return result;
  };
  const env = caches === undefined ? {} : { XDG_CACHE_HOME: join(folder, caches) };
  const known = await KnownVerdict.of({ ...engine.info, fingerprint: ['model', 'runtime 1'], ...changes }, env);
  const invariant = await selfCheck(engine, new Registry(), pino({ level: 'silent' }), known, budgetMs);
  return { invariant, ran: runs > 0 };
}

test.each([true, false])('a result (%s) is kept for the same fingerprint, slots and context', async (invariant) => {
  const caches = `invariant-${invariant}`;
  const unsteady = !invariant;
  expect(await check({ caches, unsteady })).toEqual({ invariant, ran: true });
  expect(await check({ caches, unsteady })).toEqual({ invariant, ran: false });
  for (const change of [{ fingerprint: ['model', 'runtime 2'] }, { maxSlots: 2 }, { contextLength: 64 }]) {
    expect(await check({ caches, unsteady, ...change })).toEqual({ invariant, ran: true });
  }
});

test('a result of a check that the time limit ended is kept, because the next check would end there too', async () => {
  const caches = 'incomplete';
  expect(await check({ caches, budgetMs: 0 })).toEqual({ invariant: true, ran: true });
  expect(await check({ caches, budgetMs: 0 })).toEqual({ invariant: true, ran: false });
});

test('an engine without a fingerprint, a damaged file and a folder that cannot be written lead to a check', async () => {
  const caches = 'damaged';
  expect(await KnownVerdict.of(new FakeTargetEngine().info, {})).toBeUndefined();
  await check({ caches });
  const dir = join(folder, caches, 'ptp-server', 'self-check');
  const [file] = await readdir(dir);
  for (const content of ['{"invariant":', '{"invariant":true}', 'null']) {
    await writeFile(join(dir, file as string), content);
    expect(await check({ caches })).toEqual({ invariant: true, ran: true });
  }
  await writeFile(join(folder, 'a-file'), '');
  expect(await check({ caches: 'a-file' })).toEqual({ invariant: true, ran: true });
});

test('a user without a home folder stores nothing', async () => {
  const homedir = vi.spyOn(os, 'homedir').mockImplementation(() => {
    throw new Error('ENOENT: no such file or directory, uv_os_homedir');
  });
  syncBuiltinESMExports();
  for (let start = 0; start < 2; start++) expect(await check({})).toEqual({ invariant: true, ran: true });
  expect(homedir).toHaveBeenCalledTimes(2);
  homedir.mockRestore();
  syncBuiltinESMExports();
});

import { mkdtemp, readdir, rm, writeFile } from 'node:fs/promises';
import { syncBuiltinESMExports } from 'node:module';
import os from 'node:os';
import { join } from 'node:path';
import { FakeTargetEngine } from '@ptp/engine/testing/fake-engine';
import { pino } from 'pino';
import { Registry } from 'prom-client';
import { afterAll, beforeAll, expect, test, vi } from 'vitest';
import { type CheckedEngine, KnownVerdict } from '../src/known-verdict.ts';
import { selfCheck } from '../src/self-check.ts';

let folder: string;
let checked: CheckedEngine;
beforeAll(async () => {
  folder = await mkdtemp(join(os.tmpdir(), 'ptp-self-check-'));
  await writeFile(join(folder, 'manifest.json'), '{}');
  checked = { dir: folder, runtime: 'runtime 1', threads: 1, maxSlots: 4, contextLength: 512 };
});
afterAll(() => rm(folder, { recursive: true }));

/** Checks a fake engine. @returns the result and whether the engine ran */
async function check({
  caches,
  unsteady = false,
  budgetMs,
  ...changes
}: Partial<CheckedEngine> & { caches?: string; unsteady?: boolean; budgetMs?: number }) {
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
  const known = await KnownVerdict.of({ ...checked, ...changes }, env);
  const invariant = await selfCheck(engine, new Registry(), pino({ level: 'silent' }), known, budgetMs);
  return { invariant, ran: runs > 0 };
}

test('a positive result is kept for the same model, runtime, threads, slots and context', async () => {
  const caches = 'positive';
  expect(await check({ caches })).toEqual({ invariant: true, ran: true });
  expect(await check({ caches })).toEqual({ invariant: true, ran: false });
  for (const change of [{ runtime: 'runtime 2' }, { threads: 2 }, { maxSlots: 8 }, { contextLength: 64 }]) {
    expect(await check({ caches, ...change })).toEqual({ invariant: true, ran: true });
  }
  await writeFile(join(folder, 'manifest.json'), '{"other":1}');
  expect(await check({ caches })).toEqual({ invariant: true, ran: true });
});

test('a result of a check that the time limit ended is not kept', async () => {
  const caches = 'incomplete';
  for (let start = 0; start < 2; start++) {
    expect(await check({ caches, budgetMs: 0 })).toEqual({ invariant: true, ran: true });
  }
  expect(await check({ caches })).toEqual({ invariant: true, ran: true });
  expect(await check({ caches })).toEqual({ invariant: true, ran: false });
});

test('a negative result, a damaged file and a folder that cannot be written lead to a check', async () => {
  const caches = 'negative';
  for (let start = 0; start < 2; start++) {
    expect(await check({ caches, unsteady: true })).toEqual({ invariant: false, ran: true });
  }
  await check({ caches });
  const dir = join(folder, caches, 'ptp-server', 'self-check');
  const [file] = await readdir(dir);
  await writeFile(join(dir, file as string), '{"invariant":');
  expect(await check({ caches })).toEqual({ invariant: true, ran: true });
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

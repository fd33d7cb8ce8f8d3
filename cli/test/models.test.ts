import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { FakeHub } from '../../service-kit/test/testing/fake-hub.ts';

let hub: FakeHub;
let home: string;
beforeAll(async () => {
  hub = await new FakeHub().listen();
  home = await mkdtemp(join(tmpdir(), 'hub-'));
  hub.repos['org/repo'] = { files: { 'm-Q4_K_M.gguf': 'x'.repeat(2500) } };
});
afterAll(async () => {
  hub.close();
  await rm(home, { recursive: true });
});

async function models(...words: string[]) {
  const child = spawn(process.execPath, [join(import.meta.dirname, '..', 'main.ts'), 'models', ...words], {
    env: { ...process.env, HF_HOME: home, XDG_CACHE_HOME: home, HF_ENDPOINT: hub.url },
  });
  const [out, err, [code]] = await Promise.all([text(child.stdout), text(child.stderr), once(child, 'close')]);
  return { out, err, code };
}

test('ptp models pulls, lists and removes models on this machine', { timeout: 60_000 }, async () => {
  expect(await models('list')).toEqual({
    out: '',
    err: 'no models on this machine; download one with: ptp models pull org/repo\n',
    code: 0,
  });
  const pulled = await models('pull', 'org/repo');
  expect(pulled.out).toMatch(/\/snapshots\/[0-9a-f]+\/m-Q4_K_M\.gguf\n$/);
  expect(pulled.err).toMatch(/^org\/repo: m-Q4_K_M\.gguf, 2\.50 kB, licence: apache-2\.0\n/);
  expect(pulled.err).toMatch(/serve it with: npm start -- --model org\/repo:Q4_K_M\n$/);

  const [head, row] = (await models('list')).out.split('\n');
  expect(head).toMatch(/^NAME +QUANTISATION +SIZE +PATH$/);
  expect(row?.split(/ {2,}/)).toEqual(['org/repo:Q4_K_M', 'Q4_K_M', '2.50 kB', pulled.out.trim()]);
  const [listed] = JSON.parse((await models('list', '--json')).out);
  expect(listed).toMatchObject({ name: 'org/repo:Q4_K_M', bytes: 2500 });

  expect(await models('rm', 'org/repos')).toMatchObject({
    err: 'ptp: no model `org/repos` on this machine: there are org/repo:Q4_K_M\n',
    code: 1,
  });
  expect((await models('rm', 'org/repo:Q4_K_M')).out).toBe('removed org/repo:Q4_K_M: 2.50 kB freed\n');
  expect((await models('list')).out).toBe('');
});

test('ptp models pull explains what is wrong with a name', async () => {
  expect(await models('pull', 'repo')).toMatchObject({
    err: "ptp: `repo` must be a model's name, org/repo[:quantisation or file]\n",
    code: 1,
  });
  expect((await models('pull', 'org/unknown')).err).toMatch(
    /^ptp: 127\.0\.0\.1:\d+ has no model `org\/unknown`: check/,
  );
});

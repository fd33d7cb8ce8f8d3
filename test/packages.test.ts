import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { mkdir, mkdtemp, readdir, readFile, rm, symlink } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { freePort } from '../bench/chaos/free-port.ts';

const ROOT = join(import.meta.dirname, '..');
const TINY = join(ROOT, 'test', 'models', 'tiny');
const folder = await mkdtemp(join(tmpdir(), 'ptp-packages-'));
const packages = join(folder, 'dist', 'packages');
const modules = join(folder, 'node_modules');
const server = join(modules, 'ptp-server');
const archives = {
  'ptp-server': 'ptp-server',
  protocol: '@ptp/protocol',
  'service-kit': '@ptp/service-kit',
  engine: '@ptp/engine',
};
const manifestOf = async (path: string) => JSON.parse(await readFile(join(path, 'package.json'), 'utf8'));

/** Unpacks the archives, and links the other packages that they name, so that a missing dependency is noticed. */
async function install(): Promise<void> {
  const pack = [join(ROOT, 'scripts', 'pack.ts'), '--out', join(folder, 'dist'), '--without-weights'];
  execFileSync(process.execPath, pack, { stdio: 'ignore' });
  for (const [file, name] of Object.entries(archives)) {
    const target = join(modules, name);
    await mkdir(target, { recursive: true });
    const [archive = ''] = (await readdir(packages)).filter((each) =>
      new RegExp(`^(ptp-)?${file}-\\d.*tgz$`).test(each),
    );
    execFileSync('tar', ['-xzf', join(packages, archive), '-C', target, '--strip-components=1']);
  }
  for (const name of Object.values(archives)) {
    for (const library of Object.keys((await manifestOf(join(modules, name))).dependencies)) {
      const link = join(modules, library);
      if (library.startsWith('@ptp/') || existsSync(link)) continue;
      await mkdir(dirname(link), { recursive: true });
      await symlink(join(ROOT, 'node_modules', library), link);
    }
  }
}

beforeAll(install, 300_000);
afterAll(() => rm(folder, { recursive: true }));

test('the packages are ready to be published', async () => {
  for (const name of Object.values(archives)) {
    const { private: isPrivate, version, license, publishConfig, dependencies } = await manifestOf(join(modules, name));
    expect({ isPrivate, license, publishConfig }).toEqual({
      isPrivate: undefined,
      license: 'Apache-2.0',
      publishConfig: { access: 'public', provenance: true },
    });
    for (const [library, range] of Object.entries(dependencies)) {
      expect(range, library).toMatch(/^\d+\.\d+\.\d+$/);
      if (library.startsWith('@ptp/')) expect(range).toBe(version);
    }
    const files = await readdir(join(modules, name), { recursive: true });
    expect(files).toContain('LICENSE');
    expect(files.filter((file) => /(?<!\.d)\.ts$|\.test\.|__pycache__|\btesting\b/.test(file))).toEqual([]);
  }
  const assets = ['models/default/manifest.json', 'gateway/web/index.html', 'training/src/ptp_engine/__main__.py'];
  for (const asset of assets) expect(existsSync(join(server, asset)), asset).toBe(true);
});

test('all exports of the libraries can be imported, and have types', async () => {
  for (const name of ['@ptp/protocol', '@ptp/service-kit', '@ptp/engine']) {
    const { exports } = await manifestOf(join(modules, name));
    expect(Object.keys(exports).length).toBeGreaterThan(5);
    for (const { types, default: file } of Object.values<{ types: string; default: string }>(exports)) {
      expect(existsSync(join(modules, name, types)), types).toBe(true);
      expect(existsSync(join(modules, name, file)), file).toBe(true);
    }
  }
});

test('ptp serves a model and is its client', async () => {
  const port = await freePort();
  const ptp = join(server, 'cli', 'ptp.js');
  const child = spawn(process.execPath, [ptp, '--model', TINY, '--port', String(port)], { cwd: folder });
  const output: string[] = [];
  for (const stream of [child.stdout, child.stderr]) stream.setEncoding('utf8').on('data', (text) => output.push(text));
  try {
    await expect.poll(() => output.join(''), { timeout: 120_000, interval: 200 }).toContain('ready at');
    const url = `http://127.0.0.1:${port}/v1`;
    const client = spawn(process.execPath, [ptp, 'complete', '--url', url, '--max-tokens', '4', '--json', 'type A ='], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    const [text] = await once(client.stdout.setEncoding('utf8'), 'data');
    expect(JSON.parse(text)).toHaveProperty('text');
    expect(output.join('')).not.toContain('warn');
  } finally {
    child.kill('SIGTERM');
    await once(child, 'close');
  }
}, 180_000);

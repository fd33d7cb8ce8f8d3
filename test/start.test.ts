import { once } from 'node:events';
import { readdirSync, readFileSync } from 'node:fs';
import { cp, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { type AddressInfo, createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { SETTING_NAMES } from '@ptp/service-kit/setting-names';
import { afterEach, describe, expect, test, vi } from 'vitest';
import { freePort, isAlive, servicesOf, start as startProcess } from './start-process.ts';

const root = join(import.meta.dirname, '..');
const cleanups: (() => unknown)[] = [];
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
});

/** Runs scripts/start.ts until the end of the test. */
async function start(...args: string[]) {
  const started = await startProcess(...args);
  cleanups.push(started.kill);
  return started;
}

const models = ['--model', join(root, 'test', 'models', 'tiny')];
const KINDS =
  'a folder exported by ptp-train, a .gguf file, a Hugging Face model folder, or a name on huggingface.co: org/repo[:quantisation or file]';
const MODEL_FILES = 'it must have manifest.json, a .gguf file, or config.json and .safetensors files';
const waiting = { timeout: 45_000, interval: 50 };

/** Copies the tiny model without its drafter. @returns the folder */
async function targetAlone(): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), 'm-'));
  cleanups.push(() => rm(folder, { recursive: true, force: true }));
  await cp(join(root, 'test', 'models', 'tiny'), folder, { recursive: true });
  const manifest = JSON.parse(readFileSync(join(folder, 'manifest.json'), 'utf8'));
  delete manifest.drafter;
  await writeFile(join(folder, 'manifest.json'), JSON.stringify(manifest));
  return folder;
}

describe('npm start', { timeout: 120_000 }, () => {
  test('serves, restarts services, and ends at a signal without leaving files', async () => {
    const [port, metrics] = [await freePort(), await freePort()];
    vi.stubEnv('PTP_METRICS_LISTEN', `127.0.0.1:${metrics}`);
    cleanups.push(() => vi.unstubAllEnvs());
    const { child, ended, folder, output } = await start(...models, '--port', String(port));
    // npm start prints this command once it is ready
    const command = await vi.waitUntil(() => /curl -N (\S+) .* -d '(.*)'\n/.exec(output()), waiting);
    const stream = async () => {
      const headers = { 'content-type': 'application/json' };
      const response = await fetch(command[1] ?? '', { method: 'POST', headers, body: command[2] ?? '' });
      return response.text();
    };
    expect(command[1]).toBe(`http://127.0.0.1:${port}/v1/completions`);
    expect(output()).toMatch(/ model {4}tiny, float32, [\d.]+ kB\n/);
    expect(output()).toContain(' engine   ONNX Runtime on the CPU, 1 thread\n');
    expect(output()).toMatch(/ drafting the model's drafter, blocks of up to \d+ tokens; prompt lookup\n/);
    if (process.platform === 'linux') {
      expect(output()).toMatch(
        / memory {3}\d+ MB \(drafter \d[\d.]+ MB, verifier \d[\d.]+ MB, gateway \d[\d.]+ MB\)\n/,
      );
    }
    for (const [at, service] of [
      [metrics, 'verifier'],
      [metrics + 1, 'drafter'],
      [port, 'gateway'],
    ]) {
      const exposition = await (await fetch(`http://127.0.0.1:${at}/metrics`)).text();
      expect(exposition).toContain(`service_name="ptp-${service}"`);
    }
    expect(await stream()).toMatch(/^data: \{[\s\S]*data: \[DONE\]\n\n$/);

    if (process.platform === 'linux') {
      process.kill(servicesOf(child).verifier as number, 'SIGKILL');
      await vi.waitUntil(() => output().includes('the verifier exited (SIGKILL); starting it again'), waiting);
      await vi.waitUntil(async () => (await fetch(`http://127.0.0.1:${port}/readyz`)).ok, waiting);
      expect(await stream()).toContain('[DONE]');
    }
    child.kill('SIGINT');
    expect(await ended).toBe(0);
    for (const name of ['drafter ', 'verifier', 'gateway ']) expect(output()).toContain(`${name} | stopped`);
    expect(readdirSync(folder)).toEqual([]);
  });

  test.each([
    ['without a drafter', []],
    ['with a smaller model that drafts', ['--draft-model', join(root, 'test', 'models', 'tiny-feature')]],
  ])('serves a target alone, %s', async (_, draftModel) => {
    const models = await targetAlone();
    const port = await freePort();
    const { child, ended, output } = await start('--model', models, ...draftModel, '--port', String(port));
    await vi.waitUntil(() => output().includes('ready at'), waiting);
    const body = JSON.stringify({ model: 'default', prompt: 'x', max_tokens: 50, temperature: 1, ignore_eos: true });
    const headers = { 'content-type': 'application/json' };
    const url = `http://127.0.0.1:${port}`;
    const response = await fetch(`${url}/v1/completions`, { method: 'POST', headers, body });
    expect((await response.json()).usage.completion_tokens).toBe(50);
    const metrics = await (await fetch(`${url}/metrics`)).text();
    const drafts = draftModel.length > 0;
    expect(/^ptp_tokens_proposed_total{.*source="drafter"/m.test(metrics)).toBe(drafts);
    child.kill('SIGINT');
    expect(await ended).toBe(0);
    expect(output().includes('drafter  |')).toBe(drafts);
    expect(output()).toMatch(
      drafts
        ? / drafting tiny, float32, \d+ kB, one token at a time; prompt lookup\n/
        : / drafting prompt lookup only; /,
    );
  });

  test.skipIf(process.platform !== 'linux')('leaves no services behind when it is killed', async () => {
    const { child, output } = await start(...models, '--port', String(await freePort()));
    await vi.waitUntil(() => output().includes('ready at'), waiting);
    const services = Object.values(servicesOf(child));
    expect(services).toHaveLength(3);
    child.kill('SIGKILL');
    await vi.waitUntil(() => !services.some(isAlive), waiting);
  });

  test('prints one line that names the setting to change', async () => {
    const port = await freePort();
    const holder = createServer().listen(port, '127.0.0.1');
    cleanups.push(() => holder.close());
    await once(holder, 'listening');
    const attempts: [string[], string][] = [
      [[...models, '--port', String(port)], `port ${port} is in use: set PTP_LISTEN or --port to another port`],
      [['--model', '/nowhere'], `there is no file or folder /nowhere: set --model to ${KINDS}`],
      [[...models, '--draft-model', '/no'], `there is no file or folder /no: set --draft-model to ${KINDS}`],
      [
        ['--model', 'README.md'],
        `${join(root, 'README.md')} is not a model: name a .gguf file or the folder of a model`,
      ],
      [['--model', 'docs'], `${join(root, 'docs')} contains no model: ${MODEL_FILES}`],
      [
        [...models, '--engine', 'gpu'],
        '`PTP_ENGINE` must be torch, host:port, unix:/path, or a comma-separated list of http:// addresses, got "gpu"',
      ],
      [
        [...models, '--engine', 'torch', '--drafter', 'drafer.pt'],
        '--drafter must be a checkpoint, host:port or unix:/path, got "drafer.pt"',
      ],
      [
        [...models, '--engine', 'torch', '--drafter', 'http://gpu:30000'],
        '--drafter must be a checkpoint, host:port or unix:/path, got "http://gpu:30000"',
      ],
      [[...models, '--tensor-parallel', '0'], '--tensor-parallel must be an integer in [1, 64], got "0"'],
      [['--port', 'x'], '--port must be an integer in [1, 65534], got "x"'],
      [['--prot', '1'], '--prot is not a flag: did you mean --port? See npm start -- --help'],
      [['--verbose'], '--verbose is not a flag: see npm start -- --help'],
      [['--models', 'org/name'], '--models is not a flag: did you mean --model? See npm start -- --help'],
      [[...models, '--max-streams', '0'], '`PTP_MAX_STREAMS` must be an integer >= 1, got "0"'],
      [[...models, '--verifiers', 'a:1,b:1'], 'npm start runs one verifier: PTP_VERIFIERS must be one address, got 2'],
    ];
    await Promise.all(
      attempts.map(async ([args, line]) => {
        // Each needs its own ports, because start probes them.
        const ports = args.includes('--port') ? [] : ['--port', String(await freePort())];
        const { ended, output } = await start(...args, ...ports);
        expect(await ended).toBe(1);
        expect(output()).toBe(`ptp-server: ${line}\n`);
      }),
    );
  });

  test.each([
    ['PTP_HTTP_ADDRESS', 'PTP_LISTEN'],
    ['PTP_MODELS', 'PTP_MODEL'],
  ])('names the new variable for %s, which was renamed', async (before, now) => {
    vi.stubEnv(before, 'x');
    cleanups.push(() => vi.unstubAllEnvs());
    const { ended, output } = await start(...models);
    expect(await ended).toBe(1);
    expect(output()).toBe(`ptp-server: \`${before}\` was renamed: set \`${now}\`\n`);
  });

  test('stops the others when a service cannot start', async () => {
    const holder = createServer().listen(0, '127.0.0.1');
    cleanups.push(() => holder.close());
    await once(holder, 'listening');
    const { port } = holder.address() as AddressInfo;
    vi.stubEnv('PTP_VERIFIERS', `127.0.0.1:${port}`);
    cleanups.push(() => vi.unstubAllEnvs());
    const { ended, output } = await start(...models, '--port', String(await freePort()));
    expect(await ended).toBe(1);
    expect(output()).toContain(`127.0.0.1:${port} is in use: set PTP_LISTEN to another address`);
    expect(output()).toContain('ptp-server: the verifier exited (status 1) before it was ready');
  });

  test('has a short and a complete help text', async () => {
    const help = await start('--help');
    expect(await help.ended).toBe(0);
    expect(help.output()).toContain('npm start -- [flags]');
    for (const flag of ['--model MODEL', '--draft-model MODEL', '--engine ENGINE', '--drafter CHECKPOINT', '--port N'])
      expect(help.output()).toContain(flag);
    expect(help.output().match(/^ {2}(-h, )?--/gm)).toHaveLength(14);
    const all = await start('--help-all');
    expect(await all.ended).toBe(0);
    const words = all.output().split(/\s+/);
    for (const name of SETTING_NAMES) expect(words).toContain(`${name}.`);
    for (const line of `${help.output()}${all.output()}`.split('\n')) expect(line.length).toBeLessThanOrEqual(100);
  });
});

import { chmod, mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { availableParallelism, tmpdir } from 'node:os';
import { delimiter, join } from 'node:path';
import { checkSpace } from '@ptp/service-kit/models/disk';
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import { describeDrafter, describeEngine } from '../scripts/describe-engine.ts';
import { hasNvidiaGpu } from '../scripts/gpus.ts';
import { prepareEngines } from '../scripts/start-engine.ts';
import { draftShare } from '../scripts/start-gpus.ts';
import { prepareModels } from '../scripts/start-model.ts';
import type { EngineFlags } from '../scripts/start-options.ts';
import { converterSteps, enginePython } from '../scripts/start-python.ts';
import { shares } from '../scripts/start-threads.ts';
import { weightBytes, weightFiles } from '../scripts/weights.ts';
import { FakeHub } from '../service-kit/test/testing/fake-hub.ts';

vi.mock('@ptp/service-kit/models/disk', { spy: true });

const { tokenizer } = JSON.parse(await readFile(new URL('fixtures/hf-folders.json', import.meta.url), 'utf8'));
const CONFIG = {
  vocab_size: 6,
  hidden_size: 64,
  num_hidden_layers: 3,
  num_attention_heads: 4,
  max_position_embeddings: 256,
  eos_token_id: 3,
};
const files = {
  'config.json': JSON.stringify(CONFIG),
  'tokenizer.json': JSON.stringify(tokenizer),
  'model.safetensors': 'weights',
};

const addresses = { target: '127.0.0.1:1', draft: 'unix:/sockets/draft.sock' };

let home: string;
let env: NodeJS.ProcessEnv;
let said: string[];
beforeEach(async () => {
  home = await mkdtemp(join(tmpdir(), 'start-'));
  said = [];
  vi.spyOn(console, 'log').mockImplementation((line) => said.push(line));
  env = { PTP_PYTHON: await script('python', '[ "$1" = -c ] && echo'), XDG_CACHE_HOME: home, PATH: home };
});
afterEach(async () => {
  vi.restoreAllMocks();
  await rm(home, { recursive: true });
});

/** Writes a shell script. @returns its path */
async function script(name: string, body: string): Promise<string> {
  const path = join(home, name);
  await writeFile(path, `#!/bin/sh\n${body}\n`);
  await chmod(path, 0o755);
  return path;
}

/** Writes a Hugging Face folder. @returns its path */
async function folder(name: string): Promise<string> {
  const path = join(home, name);
  await mkdir(path);
  for (const [file, content] of Object.entries(files)) await writeFile(join(path, file), content);
  return path;
}

async function prepare(flags: Partial<EngineFlags>, changes: NodeJS.ProcessEnv = {}) {
  Object.assign(env, changes);
  const all = { engine: 'torch', drafter: '', tensorParallel: 1, ...flags };
  const models = await prepareModels(env, all.engine);
  const { target, drafter, workers } = await prepareEngines(env, all, models, addresses);
  const commands = workers.map(({ command = [] }) => command.slice(1).join(' '));
  return { target, drafter, commands, gpus: workers.map((worker) => worker.env?.CUDA_VISIBLE_DEVICES) };
}

describe.skipIf(process.platform === 'win32')('--engine torch', () => {
  const context = '--context-length 256';
  const cores = shares(availableParallelism());

  test('starts a worker for the target, and another one for a draft model', async () => {
    const [PTP_MODEL, PTP_DRAFT_MODEL] = [await folder('large'), await folder('small')];
    expect(await prepare({}, { PTP_MODEL })).toEqual({
      target: addresses.target,
      drafter: '',
      commands: [`-m ptp_engine target ${PTP_MODEL} ${context} --listen ${addresses.target} --exit-with-stdin`],
      gpus: [undefined],
    });
    expect(await prepare({}, { PTP_DRAFT_MODEL })).toMatchObject({
      drafter: addresses.draft,
      commands: [
        `-m ptp_engine target ${PTP_MODEL} ${context} --threads ${cores.verifying} --listen ${addresses.target} --exit-with-stdin`,
        `-m ptp_engine target ${PTP_DRAFT_MODEL} ${context} --threads ${cores.drafting} --listen ${addresses.draft} --exit-with-stdin`,
      ],
    });
  });

  test('starts a worker for a PTP drafter, and passes settings on', async () => {
    const checkpoint = join(home, 'drafter.pt');
    await writeFile(checkpoint, '');
    const PTP_MODEL = await folder('large');
    const changes = { PTP_SEQUENCE_LIMIT: '9', PTP_PREFIX_CACHE_MB: '0', PTP_ENGINE_THREADS: '2', PTP_MODEL };
    const { commands } = await prepare({ drafter: checkpoint }, { ...changes, PTP_CONTEXT_LENGTH: '100' });
    const options = '--context-length 100 --max-sequences 9 --threads 2 --no-prefix-cache';
    expect(commands).toEqual([
      `-m ptp_engine target ${PTP_MODEL} ${options} --listen ${addresses.target} --exit-with-stdin`,
      `-m ptp_engine drafter ${checkpoint} --target ${PTP_MODEL} ${options} --listen ${addresses.draft} --exit-with-stdin`,
    ]);
  });

  test('gives each worker a GPU of its own, or both a share of the only one', async () => {
    const models = { PTP_MODEL: await folder('large'), PTP_DRAFT_MODEL: await folder('small') };
    await script('nvidia-smi', 'echo 1000; echo 1000; echo 1000');
    const several = await prepare({ tensorParallel: 2 }, models);
    expect(several.gpus).toEqual(['0,1', '2']);
    expect(several.commands[0]).toMatch(
      /^-m torch.distributed.run --standalone --nproc-per-node 2 -m ptp_engine target /,
    );
    for (const command of several.commands) expect(command).toMatch(/ --memory-fraction 0.900$/);
    const one = await prepare({}, { CUDA_VISIBLE_DEVICES: '2' });
    expect(one.gpus).toEqual(['2', '2']);
    for (const command of one.commands) expect(command).toMatch(/ --memory-fraction 0.450$/);
    const message = '--tensor-parallel must be at most 1, the number of GPUs, got 2';
    await expect(prepare({ tensorParallel: 2 })).rejects.toThrow(message);
  });

  test('downloads the weights, although the repository has a GGUF file', async () => {
    vi.spyOn(process.stderr, 'write').mockReturnValue(true);
    const hub = await new FakeHub().listen();
    hub.repos['org/repo'] = { files: { ...files, 'm-Q4_K_M.gguf': 'four' } };
    const hubEnv = { PTP_MODEL: 'org/repo', HF_HOME: home, HF_ENDPOINT: hub.url };
    const { commands } = await prepare({}, hubEnv);
    expect(commands[0]).toMatch(/ptp_engine target \/.*\/models--org--repo\/snapshots\/\w+ /);
    hub.close();
  });

  test('explains flags that do not fit', async () => {
    const [PTP_MODEL, PTP_DRAFT_MODEL] = [await folder('large'), await folder('small')];
    const tiny = join(import.meta.dirname, 'models', 'tiny');
    const rejects = (flags: Partial<EngineFlags>, changes: NodeJS.ProcessEnv, message: string) =>
      expect(prepare(flags, { PTP_MODEL, PTP_DRAFT_MODEL: '', ...changes })).rejects.toThrow(message);
    const drafter = PTP_DRAFT_MODEL;
    await rejects({ engine: '', drafter }, { PTP_MODEL: tiny }, '--drafter needs --engine: add --engine torch');
    await rejects({ engine: 'a:1', tensorParallel: 2 }, {}, '--tensor-parallel needs --engine torch');
    await rejects({ drafter }, { PTP_DRAFT_MODEL }, 'use either --drafter or --draft-model: only one can draft');
    const needs = '--engine torch needs a folder with config.json and .safetensors files, got';
    await rejects({}, { PTP_MODEL: tiny }, `${needs} ${tiny}`);
  });
});

describe.skipIf(process.platform === 'win32')('--engine ADDRESS', () => {
  test('starts no worker for the target, and downloads no weights', async () => {
    vi.spyOn(process.stderr, 'write').mockReturnValue(true);
    const hub = await new FakeHub().listen();
    hub.repos['org/repo'] = { files };
    const hubEnv = { PTP_MODEL: 'org/repo', HF_HOME: home, HF_ENDPOINT: hub.url, PTP_PYTHON: join(home, 'none') };
    const prepared = await prepare({ engine: 'gpu:7202', drafter: 'gpu:7201' }, hubEnv);
    expect(prepared).toEqual({ target: 'gpu:7202', drafter: 'gpu:7201', commands: [], gpus: [] });
    expect(hub.requests.filter((request) => request.includes('safetensors'))).toEqual([]);
    hub.close();
  });

  test('can have a drafter on this machine', async () => {
    const changes = { PTP_MODEL: await folder('large'), PTP_DRAFT_MODEL: await folder('small') };
    const { target, commands } = await prepare({ engine: 'http://gpu:30000' }, changes);
    expect(target).toBe('http://gpu:30000');
    expect(commands).toEqual([expect.stringContaining(`-m ptp_engine target ${changes.PTP_DRAFT_MODEL} `)]);
  });
});

describe.skipIf(process.platform === 'win32')('the Python for workers', () => {
  test('finds the source of ptp_engine', async () => {
    const python = await enginePython({ ...env, PYTHONPATH: '/more' });
    expect(python.env.PYTHONPATH).toBe([join(import.meta.dirname, '..', 'training', 'src'), '/more'].join(delimiter));
  });

  test('must have the packages', async () => {
    const python = await script('poor-python', 'echo grpc');
    await expect(enginePython({ ...env, PTP_PYTHON: python })).rejects.toThrow(
      `--engine torch needs the Python package grpc, which ${python} lacks: run \`${python} -m pip install -e 'training[serve]'\``,
    );
    const none = join(home, 'none');
    await expect(enginePython({ ...env, PTP_PYTHON: none })).rejects.toThrow(`${none} is not a Python that runs`);
  });

  test('is installed once, and again when the package changes', async () => {
    const [log, training] = [join(home, 'log'), join(home, 'training')];
    // `python -m venv DIR` copies the script itself to DIR/bin/python.
    const copy = '[ "$2" = venv ] && { /bin/mkdir -p "$3/bin"; /bin/cp "$0" "$3/bin/python"; }';
    const PYTHON = await script('base-python', `[ "$1" = -c ] && echo && exit; echo "$@" >> ${log}; ${copy}; exit 0`);
    await mkdir(training);
    await writeFile(join(training, 'pyproject.toml'), 'one');
    const install = async () => {
      await enginePython({ ...env, PTP_PYTHON: '', PYTHON }, training);
      return (await readFile(log, 'utf8')).trim().split('\n');
    };
    const venv = join(training, '.venv');
    const pip = expect.stringMatching(/^-m pip install --quiet .*--editable .*training\[serve\]$/);
    expect(await install()).toEqual([`-m venv ${venv}`, pip]);
    expect(said).toEqual([
      expect.stringMatching(
        /installing PyTorch for (CUDA|the CPU) and transformers, about [\d.]+ GB, in .*\.venv, once$/,
      ),
    ]);
    expect(await install()).toHaveLength(2);
    await writeFile(join(training, 'pyproject.toml'), 'two');
    expect(await install()).toEqual([`-m venv ${venv}`, pip, pip]);
  });

  test('is not installed in node_modules, whose files npm replaces', async () => {
    const [log, training] = [join(home, 'log'), join(home, 'node_modules', 'ptp-server', 'training')];
    await mkdir(join(training, 'src'), { recursive: true });
    await writeFile(join(training, 'pyproject.toml'), 'one');
    await writeFile(join(training, 'src', 'engine.py'), '');
    const copy = '[ "$2" = venv ] && { /bin/mkdir -p "$3/bin"; /bin/cp "$0" "$3/bin/python"; }';
    const PYTHON = await script('base-python', `[ "$1" = -c ] && echo && exit; echo "$@" >> ${log}; ${copy}; exit 0`);
    const { path } = await enginePython({ ...env, PTP_PYTHON: '', PYTHON }, training);
    const caches = join(home, 'ptp-server', 'training');
    expect(path).toBe(join(caches, '.venv', 'bin', 'python'));
    expect(await readFile(log, 'utf8')).toContain(`--editable ${caches}[serve]`);
    expect(await readdir(join(caches, 'src'))).toEqual(['engine.py']);
    expect((await readdir(training)).sort()).toEqual(['pyproject.toml', 'src']);
  });

  test('is installed by hand outside node_modules too', () => {
    const training = join(home, 'node_modules', 'ptp-server', 'training');
    const venv = join(home, 'ptp-server', 'training', '.venv');
    expect(converterSteps(env, training)).toBe(
      `\`python3 -m venv ${venv}\` and \`${venv}/bin/pip install '${training}[convert]'\``,
    );
  });

  test('is not installed without the disk space', async () => {
    const training = join(home, 'training');
    await mkdir(training);
    await writeFile(join(training, 'pyproject.toml'), '');
    vi.mocked(checkSpace).mockRejectedValueOnce(new Error('full'));
    await expect(enginePython({ ...env, PTP_PYTHON: '' }, training)).rejects.toThrow('full');
    expect(vi.mocked(checkSpace).mock.lastCall?.[0]).toBe(training);
    expect(said).toEqual([]);
  });

  test('needs a Python to install it with', async () => {
    const training = join(home, 'training');
    await mkdir(training);
    await writeFile(join(training, 'pyproject.toml'), '');
    const PYTHON = join(home, 'none');
    await expect(enginePython({ ...env, PTP_PYTHON: '', PYTHON }, training)).rejects.toThrow(
      `--engine torch needs Python 3.10 or later with venv, got ${PYTHON}: set PYTHON or PTP_PYTHON`,
    );
  });
});

test.skipIf(process.platform === 'win32')('nvidia-smi finds a GPU, or else the device file of one', async () => {
  expect(hasNvidiaGpu(env, home)).toBe(true);
  expect(hasNvidiaGpu(env, join(home, 'none'))).toBe(false);
  await script('nvidia-smi', 'exit 6');
  expect(hasNvidiaGpu(env, home)).toBe(false);
  await script('nvidia-smi', 'exit 0');
  expect(hasNvidiaGpu(env, join(home, 'none'))).toBe(true);
});

test('the banner gives the address of an engine that does not answer', async () => {
  const address = 'unix:/nowhere/engine.sock';
  expect(await describeEngine(address)).toBe(`PyTorch at ${address}`);
  expect(await describeDrafter(address)).toBe(`PTP drafter at ${address}`);
});

test('weights in a second form do not count', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'ptp-weights-'));
  const write = (name: string, bytes: number) => writeFile(join(folder, name), Buffer.alloc(bytes));
  expect(weightFiles(folder)).toEqual([]);
  await Promise.all([write('model.safetensors', 5), write('consolidated.safetensors', 5)]);
  expect(weightBytes(folder)).toBe(5);
  await Promise.all([write('model-1.safetensors', 3), write('model-2.safetensors', 4)]);
  const weight_map = { a: 'model-2.safetensors', b: 'model-1.safetensors', c: 'model-2.safetensors' };
  await writeFile(join(folder, 'model.safetensors.index.json'), JSON.stringify({ weight_map }));
  expect(weightFiles(folder)).toEqual(['model-1', 'model-2'].map((name) => join(folder, `${name}.safetensors`)));
  expect(weightBytes(folder)).toBe(7);
  await rm(folder, { recursive: true });
});

test('two models on one GPU get memory for the same number of tokens', () => {
  const target = { weights: 16e9, perToken: 150_000 };
  const draft = { weights: 1e9, perToken: 100_000 };
  const share = draftShare(24e9, target, draft);
  const tokens = (bytes: number, { weights, perToken }: typeof target) => (bytes - weights) / perToken;
  expect(tokens((0.9 - share) * 24e9, target)).toBeCloseTo(tokens(share * 24e9, draft));
  expect(tokens(share * 24e9, draft)).toBeGreaterThan(0);
});

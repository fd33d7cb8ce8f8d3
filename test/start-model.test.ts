import { chmod, mkdir, mkdtemp, readFile, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import { convertFolder } from '../scripts/start-convert.ts';
import { binaryPackages, usersLlama } from '../scripts/start-llama.ts';
import { prepareModels } from '../scripts/start-model.ts';
import { FakeHub } from '../service-kit/test/testing/fake-hub.ts';

let home: string;
beforeEach(async () => {
  home = await mkdtemp(join(tmpdir(), 'start-'));
  vi.spyOn(console, 'log').mockReturnValue();
});
afterEach(async () => {
  vi.restoreAllMocks();
  vi.unstubAllEnvs();
  await rm(home, { recursive: true });
});

/** A Hugging Face folder. */
async function huggingFaceFolder(): Promise<string> {
  const folder = join(home, 'mine');
  await mkdir(folder);
  await writeFile(join(folder, 'config.json'), '{}');
  await writeFile(join(folder, 'model.safetensors'), 'weights');
  return folder;
}

/** Creates a stand-in for a Python with ptp-train. It logs its arguments, and `export` writes a file. */
async function stubPython(importScript = ''): Promise<() => Promise<string[]>> {
  const python = join(home, 'python');
  const log = join(home, 'log');
  const script = `#!/bin/sh
[ "$1" = -c ] && exit 0
echo "$@" >> ${log}
[ "$3" = import-hf ] && { ${importScript || ':'}; }
while [ $# -gt 1 ]; do [ "$1" = --out ] && echo converted > "$2"; shift; done
exit 0`;
  await writeFile(python, script);
  await chmod(python, 0o755);
  vi.stubEnv('PTP_PYTHON', python);
  return async () => (await readFile(log, 'utf8')).trim().split('\n');
}

describe.skipIf(process.platform === 'win32')('a Hugging Face folder', () => {
  test('is converted once', async () => {
    const folder = await huggingFaceFolder();
    const calls = await stubPython();
    const converted = join(home, 'converted');
    const path = await convertFolder(folder, 'org/mine', converted);
    expect(path).toMatch(/\/converted\/org--mine-[0-9a-f]{8}-f16\.gguf$/);
    expect(await readFile(path, 'utf8')).toBe('converted\n');
    expect(await calls()).toEqual([
      expect.stringMatching(`^-m ptp_train import-hf --work .* --from ${folder}$`),
      expect.stringMatching(
        /^-m ptp_train export --to gguf --type f16 --id mine --target .*target\.pt --tokens .*tokens/,
      ),
    ]);
    expect(await convertFolder(folder, 'org/mine', converted)).toBe(path);
    expect(await calls()).toHaveLength(2);
    await writeFile(join(folder, 'model.safetensors'), 'other weights');
    expect(await convertFolder(folder, 'org/mine', converted)).not.toBe(path);
  });

  test('that cannot be converted is an error with the reason', async () => {
    const folder = await huggingFaceFolder();
    await stubPython('echo "config.json: model_type must be one of llama, got bert" >&2; exit 1');
    await expect(convertFolder(folder, 'mine', join(home, 'converted'))).rejects.toThrow(
      `${folder} cannot be converted: config.json: model_type must be one of llama, got bert`,
    );
  });

  test('without Python is an error with the two commands', async () => {
    const folder = await huggingFaceFolder();
    vi.stubEnv('PTP_PYTHON', join(home, 'no-python'));
    await expect(prepareModels({ PTP_MODEL: folder, XDG_CACHE_HOME: home })).rejects.toThrow(
      `${folder} is a Hugging Face model, which must be converted to GGUF with Python: run \`python3 -m venv training/.venv\` and ` +
        "`training/.venv/bin/pip install -e 'training[convert]'`, then start again, or name a GGUF file",
    );
  });
});

describe('a name on the hub', () => {
  let hub: FakeHub;
  beforeEach(async () => {
    hub = await new FakeHub().listen();
    vi.spyOn(process.stderr, 'write').mockReturnValue(true);
  });
  afterEach(() => hub.close());
  const prepare = (name: string) =>
    prepareModels({ PTP_MODEL: name, HF_HOME: home, XDG_CACHE_HOME: home, HF_ENDPOINT: hub.url });

  test('of safetensors is downloaded, and converted like a folder', async () => {
    hub.repos['org/repo'] = { files: { 'config.json': '{}', 'model.safetensors': 'weights' } };
    vi.stubEnv('PTP_PYTHON', join(home, 'no-python'));
    await expect(prepare('org/repo')).rejects.toThrow(
      /snapshots\/[0-9a-f]{40} is a Hugging Face model, which must be converted/,
    );
  });

  test('that is wrong is an error', async () => {
    await expect(prepare('org/unknown')).rejects.toThrow('has no model `org/unknown`: check the name');
  });
});

test('a folder with several GGUF files is an error that lists them', async () => {
  for (const name of ['a.gguf', 'b-00001-of-00002.gguf', 'b-00002-of-00002.gguf'])
    await writeFile(join(home, name), '');
  await expect(prepareModels({ PTP_MODEL: home, XDG_CACHE_HOME: home })).rejects.toThrow(
    `${home} contains several models: name one of a.gguf, b-00001-of-00002.gguf`,
  );
});

test.each([
  ['linux', 'x64', undefined, ['linux-x64']],
  ['linux', 'x64', 'cuda', ['linux-x64', 'linux-x64-cuda', 'linux-x64-cuda-ext']],
  ['linux', 'x64', 'vulkan', ['linux-x64', 'linux-x64-vulkan']],
  ['linux', 'arm64', 'cuda', ['linux-arm64']],
  ['darwin', 'arm64', undefined, ['mac-arm64-metal']],
  ['win32', 'x64', 'vulkan', ['win-x64', 'win-x64-vulkan']],
] as const)('node-llama-cpp on %s %s with accelerator %s', (platform, arch, accelerator, packages) => {
  expect(binaryPackages(platform, arch, accelerator).packages).toEqual(packages);
});

test('a node-llama-cpp of the user is found in a clone, and next to the npm packages', async () => {
  const make = (...path: string[]) => mkdir(join(home, ...path), { recursive: true });
  await make('clone', 'service-kit');
  await make('node-llama-cpp'); // The folder of another project, not a package.
  expect(usersLlama(join(home, 'clone', 'service-kit'))).toBeUndefined();
  await make('clone', 'node_modules', 'node-llama-cpp');
  expect(usersLlama(join(home, 'clone', 'service-kit'))).toBe(join(home, 'clone', 'node_modules', 'node-llama-cpp'));

  const serviceKit = join(home, 'app', 'node_modules', '@ptp', 'service-kit');
  await make('app', 'node_modules', '@ptp', 'service-kit');
  await make('app', 'node_modules', '@ptp', 'node_modules');
  expect(usersLlama(serviceKit)).toBeUndefined();
  await symlink(home, join(home, 'app', 'node_modules', '@ptp', 'node_modules', 'node-llama-cpp')); // As after a start.
  expect(usersLlama(serviceKit)).toBeUndefined();
  await make('app', 'node_modules', 'node-llama-cpp');
  expect(usersLlama(serviceKit)).toBe(join(home, 'app', 'node_modules', 'node-llama-cpp'));
});

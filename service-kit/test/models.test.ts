import { createHash, randomBytes } from 'node:crypto';
import { existsSync, readdirSync, readFileSync, realpathSync } from 'node:fs';
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fetchModel, pullModel } from '@ptp/service-kit/models/fetch-model';
import { hubConfig } from '@ptp/service-kit/models/hub-config';
import { cachedModels, removeModel } from '@ptp/service-kit/models/model-cache';
import { parseModelName } from '@ptp/service-kit/models/model-name';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { FakeHub } from './testing/fake-hub.ts';

let hub: FakeHub;
let home: string;
let output: string;
beforeEach(async () => {
  hub = await new FakeHub().listen();
  home = await mkdtemp(join(tmpdir(), 'hub-'));
  output = '';
});
afterEach(async () => {
  hub.close();
  await rm(home, { recursive: true });
});

const environment = (env: NodeJS.ProcessEnv) =>
  hubConfig({ HF_HOME: home, XDG_CACHE_HOME: join(home, 'caches'), HF_ENDPOINT: hub.url, ...env });
const out = {
  write: (text: string) => {
    output += text;
  },
};

function nameOf(text: string) {
  const name = parseModelName(text);
  if (!name) throw new Error(`not a name: ${text}`);
  return name;
}

async function get(text: string, env: NodeJS.ProcessEnv = {}) {
  return fetchModel(await environment(env), nameOf(text), out);
}

async function errorOf(text: string, env: NodeJS.ProcessEnv = {}): Promise<string> {
  return get(text, env).then(
    () => 'no error',
    (error) =>
      `${error.name}: ${error.message.replaceAll(hub.url, 'HUB').replaceAll(hub.url.slice(7), 'HUB').replaceAll(home, 'HOME')}`,
  );
}

const small = { 'README.md': 'a model', 'm-Q4_K_M.gguf': 'four', 'm-Q8_0.gguf': 'eight', 'mmproj-m-f16.gguf': 'image' };
const snapshot = (commit = '0123456789abcdef0123456789abcdef01234567') =>
  join(home, 'hub', 'models--org--repo', 'snapshots', commit);

describe('a model by its name', () => {
  test('is downloaded into the standard cache, after its size and licence were shown', async () => {
    hub.repos['org/repo'] = { files: small, license: 'mit' };
    const model = await get('org/repo');
    expect(model).toMatchObject({ name: 'org/repo:Q4_K_M', quantisation: 'Q4_K_M', bytes: 4 });
    expect(model.path).toBe(join(snapshot(), 'm-Q4_K_M.gguf'));
    expect(readFileSync(model.path, 'utf8')).toBe('four');
    expect(realpathSync(model.path)).toMatch(/\/models--org--repo\/blobs\/[0-9a-f]{64}$/);
    expect(readFileSync(join(home, 'hub', 'models--org--repo', 'refs', 'main'), 'utf8')).toMatch(/^0123/);
    expect(output).toContain('org/repo: m-Q4_K_M.gguf, 4 B, licence: mit\ndownloading 4 B from 127.0.0.1');
    expect(output).toContain('100 % of 4 B');
  });

  test('needs no network once it is cached', async () => {
    hub.repos['org/repo'] = { files: small };
    const first = await get('org/repo:q8_0');
    const requests = hub.requests.length;
    expect(await get('org/repo:Q8_0', { HF_HUB_OFFLINE: '1' })).toEqual(first);
    expect(await get('org/repo')).toEqual(first); // the cache contains only this model of the repository
    expect(hub.requests).toHaveLength(requests);
  });

  test.each([
    ['Q4_K_M before Q8_0', ['a-Q8_0.gguf', 'a-Q4_K_M.gguf', 'a-Q2_K.gguf'], 'org/repo', 'a-Q4_K_M.gguf'],
    ['Q8_0 if there is no Q4_K_M', ['a-Q8_0.gguf', 'a-Q2_K.gguf'], 'org/repo', 'a-Q8_0.gguf'],
    ['the only one', ['a-Q2_K.gguf'], 'org/repo', 'a-Q2_K.gguf'],
    ['the file of a quantisation', ['a-Q2_K.gguf', 'a-Q4_K_M.gguf'], 'org/repo:q2_k', 'a-Q2_K.gguf'],
    ['a file', ['a-Q8_0.gguf', 'b-Q8_0.gguf'], 'org/repo:b-Q8_0.gguf', 'b-Q8_0.gguf'],
    ['a file in a folder', ['x/a-Q8_0.gguf', 'x/b-Q8_0.gguf'], 'org/repo:a-Q8_0', 'x/a-Q8_0.gguf'],
  ])('chooses %s', async (_, files, name, expected) => {
    hub.repos['org/repo'] = { files: Object.fromEntries(files.map((file) => [file, file])) };
    expect(readFileSync((await get(name)).path, 'utf8')).toBe(expected);
  });

  test('fetches all parts of a GGUF in several files', async () => {
    const parts = ['Q4_K_M/m-Q4_K_M-00001-of-00002.gguf', 'Q4_K_M/m-Q4_K_M-00002-of-00002.gguf'];
    hub.repos['org/repo'] = { files: { [parts[1] as string]: 'two', [parts[0] as string]: 'one' } };
    const { path, files, bytes } = await get('org/repo');
    expect({ path, bytes }).toEqual({ path: join(snapshot(), parts[0] as string), bytes: 6 });
    expect(files.map((file) => readFileSync(file, 'utf8'))).toEqual(['one', 'two']);
    await rm(files[1] as string);
    expect(await cachedModels(await environment({}))).toEqual([]);
  });

  test('is a folder if the repository has safetensors only', async () => {
    const files = {
      'config.json': '{}',
      'tokenizer.json': '{"model":{}}',
      'model.safetensors': 'weights',
      'x.bin': 'x',
    };
    hub.repos['org/repo'] = { files };
    expect(await get('org/repo')).toMatchObject({ name: 'org/repo', path: snapshot(), bytes: 21 });
    expect(readdirSync(snapshot()).sort()).toEqual(['config.json', 'model.safetensors', 'tokenizer.json']);
    expect(await get('org/repo', { HF_HUB_OFFLINE: '1' })).toMatchObject({ path: snapshot() });
  });

  test('is a folder if the caller needs one, although the repository has a GGUF too', async () => {
    hub.repos['org/repo'] = { files: { ...small, 'config.json': '{}', 'model.safetensors': 'weights' } };
    await get('org/repo');
    const folder = async (name: string) => fetchModel(await environment({}), nameOf(name), out, 'safetensors');
    expect(await folder('org/repo')).toMatchObject({ path: snapshot(), bytes: 9 });
    const requests = hub.requests.length;
    expect(await folder('org/repo')).toMatchObject({ path: snapshot() });
    expect(hub.requests).toHaveLength(requests);
    hub.repos['org/gguf'] = { files: small };
    await expect(folder('org/gguf')).rejects.toThrow('`org/gguf` must have config.json and .safetensors files');
  });
});

describe('a download', () => {
  const content = randomBytes(300_000);
  const storage = () => hub.requests.filter((request) => request.includes('/storage/'));
  beforeEach(() => {
    hub.repos['org/repo'] = { files: { 'm.gguf': content } };
  });

  test('continues after the connection ended', async () => {
    hub.cuts = [100_000, 50_000];
    expect(readFileSync((await get('org/repo')).path)).toEqual(content);
    expect(storage()).toHaveLength(3);
  });

  test('fails if the connection ends again and again', async () => {
    hub.cuts = [0, 0, 0, 0];
    expect(await errorOf('org/repo')).toMatch(
      /^ModelError: cannot download `org\/repo` from HUB \(.*\): check the network/,
    );
  });

  test('resumes a download that an earlier run began', async () => {
    const blobs = join(home, 'hub', 'models--org--repo', 'blobs');
    await mkdir(blobs, { recursive: true });
    const hash = createHash('sha256').update(content).digest('hex');
    await writeFile(join(blobs, `${hash}.incomplete`), content.subarray(0, 100_000));
    expect(readFileSync((await get('org/repo')).path)).toEqual(content);
    expect(storage()).toEqual([`GET /storage/${hash} bytes=100000-`]);
    expect(output).toContain('m.gguf, 300 kB');
    expect(output).toContain('downloading 200 kB');
    expect(readdirSync(blobs)).toEqual([hash]);
  });

  test('is discarded if its checksum is wrong', async () => {
    hub.corrupt = Buffer.alloc(content.length);
    expect(await errorOf('org/repo')).toBe(
      'ModelError: `m.gguf` of `org/repo` was damaged during the download: run this again',
    );
    expect(existsSync(snapshot()) && readdirSync(snapshot())).toEqual([]);
    hub.corrupt = undefined;
    expect(readFileSync((await get('org/repo')).path)).toEqual(content);
  });

  test('of a later commit fetches only what has changed', async () => {
    await get('org/repo');
    const commit = 'f'.repeat(40);
    hub.repos['org/repo'] = { commit, files: { 'm.gguf': content } };
    const { path } = await pullModel(await environment({}), nameOf('org/repo'), out);
    expect(path).toBe(join(snapshot(commit), 'm.gguf'));
    expect(storage()).toHaveLength(1);
  });
});

describe('an error names the next step', () => {
  const token = { HF_TOKEN: 'hf_me' };

  test('for a wrong name', async () => {
    const name = 'ModelError: HUB has no model `org/repo`: check the name, or';
    expect(await errorOf('org/repo')).toBe(`${name} set HF_TOKEN if it is private`);
    expect(await errorOf('org/repo', token)).toBe(
      `${name} make sure that the account of HF_TOKEN may read the repository`,
    );
  });

  test('for a gated model, without and with a token', async () => {
    hub.repos['org/repo'] = { files: small, gatedTo: 'hf_other' };
    const terms = 'accept its terms at HUB/org/repo, then';
    expect(await errorOf('org/repo')).toBe(
      `ModelError: \`org/repo\` is gated: ${terms} set HF_TOKEN to a token of your account`,
    );
    expect(await errorOf('org/repo', token)).toBe(
      `ModelError: \`org/repo\` is gated, and the account of HF_TOKEN has no access: ${terms} run this again`,
    );
    hub.repos['org/repo'].gatedTo = 'hf_me';
    await writeFile(join(home, 'token'), 'hf_me\n'); // `hf auth login` writes the token to this file
    expect(await errorOf('org/repo')).toContain('no error');
  });

  test('for a private model', async () => {
    hub.repos['org/repo'] = { files: small, privateTo: 'hf_me' };
    expect(await errorOf('org/repo')).toContain('has no model');
    expect(await errorOf('org/repo', token)).toContain('no error');
  });

  test('for a bad token', async () => {
    expect(await errorOf('org/repo', { HF_TOKEN: 'mine' })).toBe(
      'ModelError: the token in HF_TOKEN must start with `hf_`: copy it again, or unset HF_TOKEN',
    );
    hub.status = 401;
    expect(await errorOf('org/repo', token)).toBe(
      'ModelError: HUB rejects the token in HF_TOKEN: create one at HUB/settings/tokens',
    );
  });

  test('for a full disk', async () => {
    hub.repos['org/repo'] = { files: small, sizes: { 'm-Q4_K_M.gguf': 1e16 } };
    expect(await errorOf('org/repo')).toMatch(
      /^ModelError: the download needs 10000 TB, and HOME\/hub has [\d.]+ [GT]B left: free some, or set HF_HOME and XDG/,
    );
    expect(hub.requests.some((request) => request.includes('resolve'))).toBe(false);
  });

  test('without a network', async () => {
    hub.close();
    expect(await errorOf('org/repo')).toBe(
      'ModelError: cannot download `org/repo` from HUB (ECONNREFUSED): check the network, or set HF_ENDPOINT to a mirror',
    );
  });

  test('offline', async () => {
    hub.repos['org/repo'] = { files: small };
    await get('org/repo');
    expect(await errorOf('org/repo:Q8_0', { HF_HUB_OFFLINE: 'true' })).toBe(
      'ModelError: `org/repo:Q8_0` is not in HOME/hub, which has org/repo:Q4_K_M: unset HF_HUB_OFFLINE to download it',
    );
  });

  test('while the hub fails', async () => {
    hub.status = 503;
    expect(await errorOf('org/repo')).toBe('ModelError: HUB answered HTTP 503 for `org/repo`: try again later');
  });

  test('for an ambiguous or unknown quantisation', async () => {
    hub.repos['org/repo'] = { files: { 'a-Q2_K.gguf': 'a', 'b-Q6_K.gguf': 'b', 'c-Q6_K.gguf': 'c' } };
    const list = 'name one as in `org/repo:NAME`, NAME being Q2_K (1 B), b-Q6_K.gguf (1 B), c-Q6_K.gguf (1 B)';
    expect(await errorOf('org/repo')).toBe(`ModelError: \`org/repo\` has several GGUF files to choose from: ${list}`);
    expect(await errorOf('org/repo:Q5_0')).toBe(`ModelError: \`org/repo\` has no \`Q5_0\`: ${list}`);
    expect(await errorOf('org/repo:Q6_K')).toContain('NAME being b-Q6_K.gguf (1 B), c-Q6_K.gguf (1 B)');
  });

  test('for a repository without a model', async () => {
    hub.repos['org/repo'] = { files: { 'README.md': 'text', 'pytorch_model.bin': 'x' } };
    expect(await errorOf('org/repo')).toBe(
      'ModelError: `org/repo` has neither .gguf nor .safetensors files: look for a repository with a name that ends in -GGUF',
    );
  });

  test('for a path that leaves the cache', async () => {
    hub.repos['org/repo'] = { files: { '../../../../m.gguf': 'x' } };
    expect(await errorOf('org/repo')).toBe('ModelError: `org/repo` has an unsafe path `../../../../m.gguf`');
  });
});

describe('models on this machine', () => {
  test('are listed, and removed one by one or with their repository', async () => {
    hub.repos['org/repo'] = { files: small };
    hub.repos['org/other'] = { files: { 'm.gguf': 'another' } };
    const config = await environment({});
    for (const name of ['org/repo:Q8_0', 'org/repo:Q4_K_M', 'org/other']) await get(name);
    await mkdir(config.convertedDir, { recursive: true });
    const converted = join(config.convertedDir, 'mine-f16.gguf');
    await writeFile(converted, 'converted');
    const names = async () => (await cachedModels(config)).map(({ name, quantisation }) => [name, quantisation]);
    const repo = [
      ['org/repo:Q4_K_M', 'Q4_K_M'],
      ['org/repo:Q8_0', 'Q8_0'],
    ];
    expect(await names()).toEqual([['org/other:m.gguf', undefined], ...repo, [converted, 'F16']]);
    await expect(removeModel(config, 'org/rep')).rejects.toThrow(
      `no model \`org/rep\` on this machine: there are org/other:m.gguf, org/repo:Q4_K_M, org/repo:Q8_0, ${converted}`,
    );
    expect(await removeModel(config, 'org/repo:Q8_0')).toBe(5);
    expect(readdirSync(join(home, 'hub', 'models--org--repo', 'blobs'))).toHaveLength(1);
    expect(await removeModel(config, 'org/other')).toBe(7);
    expect(existsSync(join(home, 'hub', 'models--org--other'))).toBe(false);
    expect(await removeModel(config, converted)).toBe(9);
    expect(await names()).toEqual([['org/repo:Q4_K_M', 'Q4_K_M']]);
  });

  test('are an empty list at first', async () => {
    const config = await environment({});
    expect(await cachedModels(config)).toEqual([]);
    await expect(removeModel(config, 'org/repo')).rejects.toThrow(
      'no model `org/repo` on this machine: there are none',
    );
  });
});

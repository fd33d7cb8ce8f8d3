import { mkdir, mkdtemp, readdir, readFile, rm, stat, symlink, truncate, utimes, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { GGUFValueType, type MetadataValue, serializeGgufMetadata } from '@huggingface/gguf';
import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { ggufIdentity } from '../src/gguf-files.ts';
import { isGguf, loadManifest } from '../src/manifest.ts';

let dir: string;
beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), 'ptp-gguf-'));
});
afterEach(() => rm(dir, { recursive: true }));

const metadata: Record<string, MetadataValue> = {
  'general.architecture': 'llama',
  'general.file_type': 7,
  'llama.context_length': 131072,
  'llama.embedding_length': 64,
  'llama.block_count': 3,
  'llama.attention.head_count': 4,
  'llama.attention.head_count_kv': 2,
  'tokenizer.ggml.model': 'gpt2',
  'tokenizer.ggml.pre': 'qwen2',
  'tokenizer.ggml.tokens': ['a', 'b', '<|end|>', '<s>', '</s>'],
  'tokenizer.ggml.eos_token_id': 4,
  'tokenizer.ggml.bos_token_id': 3,
  'tokenizer.ggml.eot_token_id': 1,
};

/** Writes the header of a GGUF file without tensors. @returns its path */
async function written(changes: Record<string, MetadataValue | undefined> = {}, name = 'model.gguf') {
  const entries = Object.entries({ ...metadata, ...changes }).filter(([, value]) => value !== undefined);
  const typed = entries.map(([key, value]) => [key, { value, ...typeOf(value as MetadataValue) }]);
  const header = serializeGgufMetadata({
    version: { value: 3, type: GGUFValueType.UINT32 },
    tensor_count: { value: 0n, type: GGUFValueType.UINT64 },
    kv_count: { value: BigInt(entries.length), type: GGUFValueType.UINT64 },
    ...Object.fromEntries(typed),
  });
  const path = join(dir, name);
  await writeFile(path, header);
  return path;
}

function typeOf(value: MetadataValue): { type: GGUFValueType; subType?: GGUFValueType } {
  if (Array.isArray(value)) return { type: GGUFValueType.ARRAY, subType: typeOf(value[0] as MetadataValue).type };
  if (typeof value === 'boolean') return { type: GGUFValueType.BOOL };
  return { type: typeof value === 'string' ? GGUFValueType.STRING : GGUFValueType.UINT32 };
}

const rejects = (path: string, message: string) =>
  expect(loadManifest(path)).rejects.toMatchObject({
    code: 'failed_precondition',
    message: expect.stringContaining(`\`${path}\` ${message}`),
  });

test('describes a GGUF file by its metadata', async () => {
  const path = await written();
  expect(isGguf(path)).toBe(true);
  expect(await loadManifest(path)).toMatchObject({
    id: 'model',
    engine: 'llama-cpp',
    quantisation: 'Q8_0',
    sizes: { vocab: 5, width: 64, layers: 3, kv_heads: 2, head_width: 16 },
    context_length: 8192,
    end_of_text: 4,
    stop_tokens: [1, 2],
    begin_of_text: null,
    pick: 'tree',
    uniforms_per_position: 3,
    bytes_per_token: { target: 3 * 2 * (16 + 16) * 2 },
    files: {},
  });
});

test('limits the context', async () => {
  const path = await written();
  expect(await loadManifest(path, 100_000)).toMatchObject({ context_length: 100_000 });
  expect(await loadManifest(path, 200_000)).toMatchObject({ context_length: 131_072 });
});

test('reads heads per layer, the name and the token that begins a text', async () => {
  const path = await written({
    'general.name': 'Nice 7B',
    'llama.attention.head_count_kv': [2, 0, 1],
    'llama.attention.key_length': 32,
    'tokenizer.ggml.add_bos_token': true,
  });
  expect(await loadManifest(path)).toMatchObject({
    id: 'Nice 7B',
    begin_of_text: 3,
    bytes_per_token: { target: 3 * (32 + 32) * 2 },
  });
});

test('without metadata, the kind of tokenizer determines the token that begins a text', async () => {
  expect(await loadManifest(await written({ 'tokenizer.ggml.pre': 'llama-bpe' }))).toMatchObject({ begin_of_text: 3 });
  expect(await loadManifest(await written({ 'tokenizer.ggml.model': 'llama' }))).toMatchObject({ begin_of_text: 3 });
});

test('the hash covers only the tokenizer', async () => {
  const hash = async (path: string) => (await loadManifest(path)).tokenizer.sha256;
  const original = await hash(await written());
  expect(await hash(await written({ 'general.file_type': 2, 'llama.block_count': 4 }))).toBe(original);
  expect(await hash(await written({ 'tokenizer.ggml.tokens': ['a', 'b', 'c', '<s>', '</s>'] }))).not.toBe(original);
});

test('an error names the file and the problem', async () => {
  const path = join(dir, 'broken.gguf');
  await rejects(path, 'cannot be read');
  await writeFile(path, 'PK nonsense, longer than a header');
  await rejects(path, 'is not a GGUF file that can be read (not a valid gguf file: not starting with GGUF magic');
  await writeFile(path, 'GGUF\x09\0\0\0');
  await rejects(path, 'is not a GGUF file that can be read (not a valid gguf file: unsupported version "9")');
  await rejects(await written({ 'tokenizer.ggml.tokens': undefined }), 'has no `tokenizer.ggml.tokens`');
  await rejects(await written({ 'llama.block_count': undefined }), 'has no `llama.block_count`');
  const cut = await written();
  await truncate(cut, 300);
  await rejects(cut, 'is truncated: its 300 bytes end before its last tensor');
});

test('a split model is named by its first part', async () => {
  const first = await written({}, 'big-00001-of-00002.gguf');
  await rejects(first, 'needs big-00002-of-00002.gguf in the same folder');
  const second = await written({}, 'big-00002-of-00002.gguf');
  expect(await loadManifest(first)).toMatchObject({ id: 'big' });
  await rejects(second, 'is part 2 of a model: name its first part, big-00001-of-00002.gguf');
});

test('the manifest of a large vocabulary is stored until the file changes', async () => {
  vi.stubEnv('XDG_CACHE_HOME', join(dir, 'caches'));
  const tokens = Array.from({ length: 10_000 }, (_, i) => `t${i}`);
  const path = await written({ 'tokenizer.ggml.tokens': tokens });
  const manifest = await loadManifest(path);
  const folder = join(dir, 'caches', 'ptp-server', 'gguf');
  const [file = ''] = await readdir(folder);
  const stored = await readFile(join(folder, file), 'utf8');
  await writeFile(join(folder, file), stored.replace('"id":"model"', '"id":"stored"'));
  expect(await loadManifest(path)).toEqual({ ...manifest, id: 'stored' });
  await writeFile(join(folder, file), '{');
  expect(await loadManifest(path)).toEqual(manifest);
  await written({ 'tokenizer.ggml.tokens': tokens, 'general.name': 'Changed' });
  expect(await loadManifest(path)).toMatchObject({ id: 'Changed' });
  vi.unstubAllEnvs();
});

test('a file that is overwritten in place has another identity, even with the same size and time', async () => {
  const path = await written();
  const before = await ggufIdentity(path);
  expect(await ggufIdentity(path)).toEqual(before);
  const { atime, mtime } = await stat(path);
  await writeFile(path, (await readFile(path)).toReversed());
  await utimes(path, atime, mtime);
  expect(await ggufIdentity(path)).not.toEqual(before);
});

test('the identity of a split model covers all parts, and a link has the identity of its file', async () => {
  const first = await written({}, 'split-00001-of-00002.gguf');
  await rejects(first, 'needs split-00002-of-00002.gguf in the same folder');
  await written({}, 'split-00002-of-00002.gguf');
  expect(await ggufIdentity(first)).toHaveLength(2);
  await mkdir(join(dir, 'links'));
  const path = await written();
  const link = join(dir, 'links', 'other.gguf');
  await symlink(path, link);
  expect(await ggufIdentity(link)).toEqual(await ggufIdentity(path));
  expect([(await loadManifest(path)).id, (await loadManifest(link)).id]).toEqual(['model', 'other']);
});

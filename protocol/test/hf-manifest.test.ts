import { createHash } from 'node:crypto';
import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { isHuggingFaceFolder, loadManifest } from '../src/manifest.ts';

type Json = Record<string, unknown>;

/** Folders that training/tests/test_import_hf.py reads too, so that both find the same special tokens. */
interface Fixture {
  readonly tokenizer: Json & { readonly model: Json };
  readonly cases: readonly {
    readonly name: string;
    readonly config?: Json;
    readonly generation_config?: Json;
    readonly tokenizer_config?: Json;
    readonly post_processor?: Json;
    readonly expected?: Json;
    readonly error?: string;
  }[];
}

const fixture: Fixture = JSON.parse(
  await readFile(new URL('../../test/fixtures/hf-folders.json', import.meta.url), 'utf8'),
);
const CONFIG = {
  vocab_size: 6,
  hidden_size: 64,
  num_hidden_layers: 3,
  num_attention_heads: 4,
  max_position_embeddings: 256,
};

let dir: string;
beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), 'ptp-hf-'));
});
afterEach(() => rm(dir, { recursive: true }));

/** Writes `name`.json for each entry. @returns the folder */
async function folder(files: Readonly<Record<string, unknown>>, path = dir): Promise<string> {
  for (const [name, content] of Object.entries(files)) {
    await writeFile(join(path, `${name}.json`), typeof content === 'string' ? content : JSON.stringify(content));
  }
  return path;
}

const described = async (config: Json, files: Json = {}) =>
  loadManifest(
    await folder({ config: { ...CONFIG, eos_token_id: 3, ...config }, tokenizer: fixture.tokenizer, ...files }),
  );

describe('special tokens are the same as in ptp-train', () => {
  test.each(fixture.cases)('$name', async ({ config, post_processor = null, expected, error, ...files }) => {
    const manifest = folder({
      config: { ...CONFIG, ...config },
      tokenizer: { ...fixture.tokenizer, post_processor },
      ...files,
    }).then((path) => loadManifest(path));
    if (error)
      await expect(manifest).rejects.toMatchObject({
        code: 'failed_precondition',
        message: expect.stringContaining(error),
      });
    else expect(await manifest).toMatchObject(expected ?? {});
  });
});

test('describes a model by its config.json', async () => {
  const manifest = await described({ num_key_value_heads: 2, torch_dtype: 'float32' });
  const source = JSON.stringify(fixture.tokenizer);
  expect(isHuggingFaceFolder(dir)).toBe(true);
  expect(manifest).toMatchObject({
    engine: 'torch',
    quantisation: 'float32',
    sizes: { vocab: 6, width: 64, layers: 3, heads: 4, kv_heads: 2, head_width: 16 },
    context_length: 256,
    has_chat_template: false,
    pick: 'tree',
    uniforms_per_position: 3,
    bytes_per_token: { target: 2 * 3 * 2 * 16 * 4 },
    tokenizer: { sha256: createHash('sha256').update(source).digest('hex') },
  });
  expect(await loadManifest(dir, 100)).toMatchObject({ context_length: 100 });
});

test('reads the language model of a model for text and images, and values that transformers fills in', async () => {
  const nested = { model_type: 'gemma3_text', hidden_size: 96, num_hidden_layers: 2 };
  const files = {
    config: { text_config: nested, eos_token_id: [1, 3], dtype: 'bfloat16' },
    tokenizer: fixture.tokenizer,
  };
  const path = await folder(files);
  expect(await loadManifest(path, 200_000)).toMatchObject({ context_length: 131_072 });
  expect(await loadManifest(path)).toMatchObject({
    quantisation: 'bfloat16',
    sizes: { vocab: 262_208, width: 96, layers: 2, kv_heads: 4, head_width: 256 },
    context_length: 8192,
    end_of_text: 1,
    stop_tokens: [3],
    bytes_per_token: { target: 2 * 2 * 4 * 256 * 2 },
  });
});

test('names the method of quantisation', async () => {
  expect(await described({ quantization_config: { quant_method: 'fp8' } })).toMatchObject({ quantisation: 'fp8' });
});

test('finds the chat template in either file', async () => {
  const template = { tokenizer_config: { chat_template: [{ name: 'default', template: '{{ messages }}' }] } };
  expect(await described({}, template)).toMatchObject({ has_chat_template: true });
  await writeFile(join(dir, 'chat_template.jinja'), '{{ messages }}');
  expect(await described({}, { tokenizer_config: {} })).toMatchObject({ has_chat_template: true });
});

test('the name is that of the folder, or on the hub', async () => {
  expect((await described({})).id).toBe(basename(dir));
  const snapshot = join(dir, 'models--Qwen--Qwen3-0.6B', 'snapshots', 'c0ffee');
  await mkdir(snapshot, { recursive: true });
  await folder({ config: { ...CONFIG, eos_token_id: 3 }, tokenizer: fixture.tokenizer }, snapshot);
  expect((await loadManifest(snapshot)).id).toBe('Qwen3-0.6B');
});

test('a special token outside the vocabulary is no error, because no text contains it', async () => {
  expect(await described({ vocab_size: 5 })).toMatchObject({ sizes: { vocab: 5 } });
});

test('an error names the file and the field', async () => {
  const rejects = (manifest: Promise<unknown>, file: string, problem: string) =>
    expect(manifest).rejects.toMatchObject({
      code: 'failed_precondition',
      message: expect.stringContaining(`\`${join(dir, file)}\` ${problem}`),
    });
  const size = 'must have `hidden_size`, an integer >= 1, got';
  await rejects(described({ hidden_size: undefined }), 'config.json', `${size} nothing`);
  await rejects(described({ hidden_size: '64' }), 'config.json', `${size} "64"`);
  const unigram = { ...fixture.tokenizer, model: { type: 'Unigram', vocab: [] } };
  const kind = 'must be a byte-level BPE or a BPE with byte fallback, got `model.type` Unigram with decoders ByteLevel';
  await rejects(described({}, { tokenizer: unigram }), 'tokenizer.json', kind);
  await rejects(described({}, { tokenizer_config: '{' }), 'tokenizer_config.json', 'must be JSON');
  await folder({ tokenizer_config: {} });
  await rejects(described({}, { tokenizer: '{' }), 'tokenizer.json', 'must be JSON');
  await rm(join(dir, 'tokenizer.json'));
  await rejects(loadManifest(dir), 'tokenizer.json', 'cannot be read');
});

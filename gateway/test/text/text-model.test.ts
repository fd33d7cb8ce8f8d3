import { cp, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { loadManifest } from '@ptp/protocol/manifest';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { loadTextModel } from '../../src/text/text-model.ts';

const source = fileURLToPath(new URL('../../../test/fixtures/tokenizer.json', import.meta.url));
const sizes = { vocab_size: 2048, hidden_size: 8, num_hidden_layers: 1, num_attention_heads: 1 };
const config = { ...sizes, max_position_embeddings: 512, eos_token_id: 0 };

let dir: string;
beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), 'ptp-text-'));
  await cp(source, join(dir, 'tokenizer.json'));
  await writeFile(join(dir, 'config.json'), JSON.stringify(config));
});
afterEach(() => rm(dir, { recursive: true }));

/** Returns the text of the prompt for a conversation of one message. */
async function prompt(beginOfText: number | null = null): Promise<string> {
  const manifest = await loadManifest(dir);
  const { tokenizer, chatTemplate } = await loadTextModel(dir, manifest);
  const model = { contextLength: 512, endOfText: 0, beginOfText };
  const ids = chatTemplate.encode([{ role: 'user', content: 'Hi' }], tokenizer, model);
  return ids.map((id) => (id === 0 ? tokenizer.name(0) : tokenizer.decode([id]))).join('');
}

test('a Hugging Face folder has its chat template in tokenizer_config.json, or in a file', async () => {
  const settings = {
    bos_token: { content: '<|endoftext|>' },
    chat_template: '{{ bos_token }}in: {{ messages[0].content }}',
  };
  await writeFile(join(dir, 'tokenizer_config.json'), JSON.stringify(settings));
  expect(await prompt()).toBe('<|endoftext|>in: Hi');
  await writeFile(join(dir, 'chat_template.jinja'), 'file: {{ messages[0].content }}');
  expect(await prompt()).toBe('file: Hi');
});

test("a prompt of a Hugging Face folder has the template's tokens only, as in transformers", async () => {
  await writeFile(join(dir, 'chat_template.jinja'), '{{ messages[0].content }}');
  expect(await prompt(5)).toBe('Hi');
  await writeFile(join(dir, 'chat_template.jinja'), '{{ bos_token }}{{ messages[0].content }}');
  await writeFile(join(dir, 'tokenizer_config.json'), JSON.stringify({ bos_token: '<|endoftext|>' }));
  expect(await prompt(0)).toBe('<|endoftext|>Hi');
});

test('a Hugging Face folder without a template uses the same format as llama.cpp', async () => {
  expect(await prompt()).toBe('<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n');
});

test('the chat template of a model folder is compared with the manifest', async () => {
  const folder = join(dir, 'model');
  await cp(fileURLToPath(new URL('../../../test/models/tiny-in-place', import.meta.url)), folder, { recursive: true });
  const load = async () => loadTextModel(folder, await loadManifest(folder));
  await load();
  const template = join(folder, 'chat_template.jinja');
  const text = await readFile(template, 'utf8');
  await writeFile(template, text.replace('messages', 'massages'));
  await expect(load()).rejects.toThrow('`chat_template.jinja` does not have the SHA-256 in `manifest.json`');
  await writeFile(template, `${text}!`);
  await expect(load()).rejects.toThrow(/`chat_template\.jinja` must have \d+ bytes/);
});

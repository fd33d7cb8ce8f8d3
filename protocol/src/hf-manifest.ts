import { createHash } from 'node:crypto';
import { readFile, stat } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { unusable } from './errors.ts';
import { type HfTokenizer, readTokenizer } from './hf-tokenizer.ts';
import { uniformsPerPosition } from './sampling-params.ts';

type Json = Readonly<Record<string, unknown>>;

/** Values that the config.json of some models leaves out, keyed by `model_type`, as in transformers. */
const DEFAULTS: Readonly<Record<string, Json>> = {
  gemma3_text: {
    vocab_size: 262_208,
    max_position_embeddings: 131_072,
    num_attention_heads: 8,
    num_key_value_heads: 4,
    head_dim: 256,
  },
  qwen3: { head_dim: 128 },
};
/** Size in bytes of a key or value, keyed by `dtype`. Other types have two bytes. */
const BYTES: Readonly<Record<string, number>> = { float32: 4, float64: 8 };

/**
 * Describes a Hugging Face folder, which has config.json, tokenizer.json and weights, in the same form as the
 * manifest.json of a model folder. The ids of the special tokens are those that `ptp-train import-hf` writes
 * (training/src/ptp_train/model/import_hf.py).
 *
 * @throws PtpError `failed_precondition` naming the file and the field that is missing or invalid
 */
export async function huggingFaceManifest(dir: string) {
  const [config, generation, settings] = await Promise.all([
    jsonFile(dir, 'config.json'),
    jsonFile(dir, 'generation_config.json', true),
    jsonFile(dir, 'tokenizer_config.json', true),
  ]);
  const path = join(dir, 'tokenizer.json');
  const source = await readFile(path).catch((cause: unknown) => {
    throw unusable(path, 'cannot be read', cause);
  });
  const model = textModel(config);
  const { bytesPerToken, ...sizes } = modelSizes(model, join(dir, 'config.json'));
  const tokenizer = readTokenizer(path, source.toString('utf8'), sizes.vocab);
  const template = await chatTemplateSource(dir, settings);
  return {
    format_version: 1,
    id: modelName(dir),
    created: (await stat(join(dir, 'config.json'))).mtime.toISOString(),
    engine: 'torch',
    quantisation: numberFormat(model),
    sizes,
    context_length: count(model, 'max_position_embeddings', join(dir, 'config.json')),
    ...endTokens(dir, [generation, config, model], settings, tokenizer, sizes.vocab),
    begin_of_text: beginOfText(settings, tokenizer),
    has_chat_template: template !== undefined,
    pick: 'tree',
    uniforms_per_position: uniformsPerPosition('tree', sizes.vocab),
    max_slots: [1],
    bytes_per_token: { target: bytesPerToken },
    tokenizer: { sha256: createHash('sha256').update(source).digest('hex') },
    files: {},
  };
}

/** Parts of a Hugging Face folder that a chat template needs. */
export interface HuggingFaceChat {
  /** Source of the chat template, if the folder has one. */
  readonly template: string | undefined;
  /** Name of the token that begins texts, which templates may write. Undefined if the tokenizer has none. */
  readonly beginName: string | undefined;
}

/** Reads the chat template of a Hugging Face folder. @throws PtpError `failed_precondition` if a file is damaged */
export async function huggingFaceChat(dir: string): Promise<HuggingFaceChat> {
  const settings = await jsonFile(dir, 'tokenizer_config.json', true);
  return { template: await chatTemplateSource(dir, settings), beginName: contentOf(settings.bos_token) };
}

/**
 * Returns the source of chat_template.jinja, or else the template in tokenizer_config.json. If there are several,
 * returns the template named `default`.
 */
async function chatTemplateSource(dir: string, { chat_template: given }: Json): Promise<string | undefined> {
  const file = await readFile(join(dir, 'chat_template.jinja'), 'utf8').catch(() => undefined);
  if (file !== undefined) return file;
  if (!Array.isArray(given)) return typeof given === 'string' ? given : undefined;
  return given.find(({ name }) => name === 'default')?.template;
}

/**
 * Returns the model's name: the last part of its name on the hub if the folder is a snapshot in the hub's cache,
 * otherwise the name of the folder.
 */
function modelName(dir: string): string {
  const repo = /^models--.*?--(.+)$/.exec(basename(dirname(dirname(dir))))?.[1];
  return (basename(dirname(dir)) === 'snapshots' && repo) || basename(dir);
}

/** Returns the configuration of the language model, which models for text and images nest in `text_config`. */
function textModel(config: Json): Json {
  const nested = (config.text_config ?? {}) as Json;
  const given = Object.entries({ ...config, ...nested }).filter(([, value]) => value !== null);
  return { ...DEFAULTS[String(nested.model_type ?? config.model_type)], ...Object.fromEntries(given) };
}

/** Returns the sizes of the model, and the number of bytes that a token takes in the KV cache. */
function modelSizes(model: Json, path: string) {
  const optional = (field: string, preset: number) => (model[field] === undefined ? preset : count(model, field, path));
  const width = count(model, 'hidden_size', path);
  const layers = count(model, 'num_hidden_layers', path);
  const heads = count(model, 'num_attention_heads', path);
  const kvHeads = optional('num_key_value_heads', heads);
  const headWidth = optional('head_dim', Math.max(1, Math.floor(width / heads)));
  const bytesPerToken = 2 * layers * kvHeads * headWidth * (BYTES[String(model.dtype ?? model.torch_dtype)] ?? 2);
  const vocab = count(model, 'vocab_size', path);
  return { vocab, width, layers, heads, kv_heads: kvHeads, head_width: headWidth, bytesPerToken };
}

/** Returns the method of quantisation, or else the type of the weights. */
function numberFormat({ quantization_config: quantised, dtype, torch_dtype: olderName }: Json): string {
  const method = (quantised as Json | undefined)?.quant_method;
  return String(method ?? dtype ?? olderName ?? 'float32');
}

/**
 * Returns the tokens that end a text: `eos_token_id` of generation_config.json, or else of config.json, or else the
 * tokenizer's eos_token. If there are several, the tokenizer's eos_token is `end_of_text`.
 */
function endTokens(dir: string, configs: readonly Json[], settings: Json, tokenizer: HfTokenizer, vocab: number) {
  const named = tokenizer.id(contentOf(settings.eos_token) ?? '');
  const given = configs.map(({ eos_token_id: value }) => value).find((value) => value !== undefined && value !== null);
  const ends = [given ?? named ?? []].flat() as number[];
  const [first] = ends;
  if (first === undefined) {
    const places = '`config.json` or `generation_config.json`, or `eos_token` in `tokenizer_config.json`';
    throw unusable(dir, `must have \`eos_token_id\` in ${places}`);
  }
  const wrong = ends.find((id) => !Number.isInteger(id) || id < 0 || id >= vocab);
  if (wrong !== undefined) {
    throw unusable(dir, `must have \`eos_token_id\` below \`vocab_size\` ${vocab}, got ${JSON.stringify(wrong)}`);
  }
  const end = named !== undefined && ends.includes(named) ? named : first;
  return { end_of_text: end, stop_tokens: ends.filter((id) => id !== end) };
}

/** Returns the token that precedes every text, or null if there is none. */
function beginOfText(settings: Json, tokenizer: HfTokenizer): number | null {
  const { add_bos_token: adds, bos_token: token } = settings;
  if (adds === undefined || adds === null) return tokenizer.firstToken;
  return adds ? (tokenizer.id(contentOf(token) ?? '') ?? null) : null;
}

/** Returns the text of a special token, which tokenizer_config.json writes as a string or as an object. */
function contentOf(token: unknown): string | undefined {
  if (typeof token === 'string') return token;
  return (token as { content?: string } | null | undefined)?.content;
}

async function jsonFile(dir: string, name: string, optional = false): Promise<Json> {
  const path = join(dir, name);
  try {
    return JSON.parse(await readFile(path, 'utf8'));
  } catch (cause) {
    if (optional && (cause as NodeJS.ErrnoException).code === 'ENOENT') return {};
    throw unusable(path, cause instanceof SyntaxError ? 'must be JSON' : 'cannot be read', cause);
  }
}

function count(model: Json, field: string, path: string): number {
  const value = model[field];
  if (Number.isInteger(value) && (value as number) > 0) return value as number;
  throw unusable(path, `must have \`${field}\`, an integer >= 1, got ${JSON.stringify(value) ?? 'nothing'}`);
}

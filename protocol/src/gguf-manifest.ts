import { createHash } from 'node:crypto';
import { stat } from 'node:fs/promises';
import { basename } from 'node:path';
import type { GGUFParseOutput } from '@huggingface/gguf';
import { CachedJson } from './cached-json.ts';
import { unusable } from './errors.ts';
import { ggufFiles, ggufIdentity } from './gguf-files.ts';
import { uniformsPerPosition } from './sampling-params.ts';

/**
 * Number of most probable tokens from which a request without top-k is sampled. llama.cpp's binding takes too long to
 * return the logits of a whole vocabulary.
 */
export const CANDIDATE_LIMIT = 1024;
/** Versions of the format that llama.cpp reads. */
const VERSIONS = [2, 3];
/** llama.cpp keeps keys and values in float16. */
const BYTES_PER_VALUE = 2;
const TOKENIZER = 'tokenizer.ggml.';
/** Names of end-of-text tokens, as in llama.cpp (llama-vocab.cpp, `special_eog_ids`). */
const END_NAMES = new Set([
  ...['<|eot_id|>', '<|im_end|>', '<|end|>', '<|return|>', '<|call|>', '<|flush|>', '<|calls|>', '<end_of_turn>'],
  ...['<|endoftext|>', '<|eom_id|>', '<EOT>', '_<EOT>', '[EOT]', '[EOS]', '<|end_of_text|>', '<end_of_utterance>'],
]);
/** Pre-tokenizers whose models begin each text with `bos` although the metadata does not say so. */
const BOS_SPLITS = new Set(['llama3', 'llama-v3', 'llama-bpe', 'falcon3', 'falcon-h1', 'pixtral', 'midm-2.0', 'lfm2']);

/** Version of stored manifests. Must be increased when `manifestOf` changes. */
const FORMAT = 1;
/** Minimum vocabulary size for storing a manifest. Reading the header of a file with 150,000 tokens takes 1.5 s. */
const STORED_FROM = 10_000;

type Library = typeof import('@huggingface/gguf');
type GgufManifest = ReturnType<typeof manifestOf>;

/** Cache of the headers that this process has read. `headerKey` returns the keys. */
const headers = new Map<string, ReturnType<typeof readHeader>>();

/**
 * Describes a GGUF file, or the first part of a split one, in the same form as the manifest.json of a model folder. The
 * description of a large vocabulary is stored, because all services need it at each start.
 *
 * @throws PtpError `failed_precondition` if the file is missing, truncated or not a language model
 */
export async function ggufManifest(path: string): Promise<GgufManifest> {
  const key = await headerKey(path);
  const stored = new CachedJson('gguf', [FORMAT, key], process.env);
  const known = await stored.read();
  if (known) return known as GgufManifest;
  const { manifest } = await header(path, key);
  if (manifest.sizes.vocab >= STORED_FROM) await stored.write(manifest);
  return manifest;
}

/** Returns the tokens of a GGUF file by id. @throws PtpError `failed_precondition` as ggufManifest does */
export async function ggufTokens(path: string): Promise<readonly string[]> {
  return (await header(path, await headerKey(path))).tokens;
}

/** Returns the cache key of a header: its files' identity, and the name, from which the id may come. */
async function headerKey(path: string): Promise<string> {
  return JSON.stringify([basename(path), await ggufIdentity(path)]);
}

/** Reads a header once per process. */
function header(path: string, key: string) {
  const read = headers.get(key) ?? readHeader(path);
  headers.set(key, read);
  read.catch(() => headers.delete(key));
  return read;
}

async function readHeader(path: string) {
  // Imported here, because most starts find a stored manifest, and the library has 70 modules.
  const library = await import('@huggingface/gguf');
  const { size, mtime } = await stat(path);
  const metadata = new Metadata(path, await parse(library, path, size));
  return {
    manifest: manifestOf(metadata, path, mtime, quantisation(library, path, metadata)),
    tokens: metadata.strings(`${TOKENIZER}tokens`),
  };
}

function manifestOf(metadata: Metadata, path: string, mtime: Date, quantisation: string) {
  const vocab = metadata.strings(`${TOKENIZER}tokens`).length;
  const { cachedValues, ...sizes } = modelSizes(metadata);
  return {
    format_version: 1,
    id: metadata.text('general.name') ?? ggufFiles(path).name,
    created: mtime.toISOString(),
    engine: 'llama-cpp',
    quantisation,
    sizes: { vocab, ...sizes },
    context_length: metadata.architecture('context_length'),
    ...endTokens(metadata),
    begin_of_text: beginOfText(metadata),
    has_chat_template: metadata.text('tokenizer.chat_template') !== undefined,
    pick: 'tree',
    uniforms_per_position: uniformsPerPosition('tree', vocab),
    candidate_limit: CANDIDATE_LIMIT,
    max_slots: [1],
    bytes_per_token: { target: cachedValues * BYTES_PER_VALUE },
    tokenizer: { sha256: metadata.tokenizerSha256() },
    files: {},
  };
}

/**
 * Reads the header. The parser reads bytes beyond the end of the file as zeros, so the size is checked as well.
 */
async function parse({ gguf }: Library, path: string, size: number): Promise<GGUFParseOutput['metadata']> {
  const { metadata, tensorInfos, tensorDataOffset, tensorInfoByteRange, littleEndian } = await gguf(path, {
    allowLocalFile: true,
  }).catch((cause: unknown) => {
    throw unusable(path, `is not a GGUF file that can be read (${(cause as Error).message})`, cause);
  });
  if (!VERSIONS.includes(metadata.version)) {
    throw unusable(path, `must have version ${VERSIONS.join(' or ')} of the format, got ${metadata.version}`);
  }
  if (!littleEndian) throw unusable(path, 'is for big-endian machines');
  const lastTensor = tensorInfos.reduce((last, { offset }) => (offset > last ? offset : last), 0n);
  const needed = Math.max(
    tensorInfoByteRange[1],
    Number(tensorDataOffset + lastTensor) + Number(tensorInfos.length > 0),
  );
  if (size < needed) throw unusable(path, `is truncated: its ${size} bytes end before its last tensor`);
  return metadata;
}

/** Typed access to the metadata. */
class Metadata {
  readonly #path: string;
  readonly #entries: Readonly<Record<string, unknown>>;

  constructor(path: string, entries: GGUFParseOutput['metadata']) {
    this.#path = path;
    this.#entries = entries as unknown as Record<string, unknown>;
  }

  /** Returns the strings of a key. @throws PtpError if the key has no strings */
  strings(key: string): readonly string[] {
    const value = this.#entries[key];
    if (Array.isArray(value) && value.length > 0) return value;
    throw unusable(this.#path, `has no \`${key}\`: it is not a language model`);
  }

  text(key: string): string | undefined {
    const value = this.#entries[key];
    return typeof value === 'string' && value !== '' ? value : undefined;
  }

  number(key: string): number | undefined {
    const value = this.#entries[key];
    return typeof value === 'number' || typeof value === 'bigint' ? Number(value) : undefined;
  }

  flag(key: string): boolean | undefined {
    const value = this.#entries[key];
    return typeof value === 'boolean' ? value : undefined;
  }

  /** Returns a number that describes the model's architecture. @throws PtpError if it is missing */
  architecture(key: string): number {
    const name = `${this.text('general.architecture')}.${key}`;
    const value = this.number(name);
    if (value === undefined) throw unusable(this.#path, `has no \`${name}\``);
    return value;
  }

  /**
   * Returns a number for each layer, [layers]. The file may contain one number for all layers. If it contains none,
   * returns `preset`.
   */
  perLayer(key: string, layers: number, preset: readonly number[]): readonly number[] {
    const value = this.#entries[`${this.text('general.architecture')}.${key}`];
    if (Array.isArray(value)) return value.map(Number);
    return value === undefined ? preset : new Array<number>(layers).fill(Number(value));
  }

  /** Returns the SHA-256 over all keys of the tokenizer. Files with equal hashes have equal token ids. */
  tokenizerSha256(): string {
    const keys = Object.keys(this.#entries).filter((key) => key.startsWith(TOKENIZER));
    const canonical = keys.sort().map((key) => [key, this.#entries[key]]);
    const json = JSON.stringify(canonical, (_, value) => (typeof value === 'bigint' ? Number(value) : value));
    return createHash('sha256').update(json).digest('hex');
  }
}

/**
 * Returns the sizes that determine the size of the KV cache. `cachedValues` is the number of keys and values per token.
 */
function modelSizes(metadata: Metadata) {
  const width = metadata.architecture('embedding_length');
  const layers = metadata.architecture('block_count');
  const heads = metadata.perLayer('attention.head_count', layers, new Array(layers).fill(1));
  const kvHeads = metadata.perLayer('attention.head_count_kv', layers, heads);
  const [headWidth] = metadata.perLayer('attention.key_length', 1, [width / Math.max(1, ...heads)]) as [number];
  const [valueWidth] = metadata.perLayer('attention.value_length', 1, [headWidth]) as [number];
  return {
    width,
    layers,
    heads: Math.max(1, ...heads),
    kv_heads: Math.max(1, ...kvHeads),
    head_width: Math.max(1, Math.round(headWidth)),
    cachedValues: Math.round(kvHeads.reduce((sum, n) => sum + n, 0) * (headWidth + valueWidth)) || 1,
  };
}

/** Returns the end-of-text tokens: the ids `eos`, `eot` and `eom`, and the tokens whose names llama.cpp knows. */
function endTokens(metadata: Metadata): { end_of_text: number; stop_tokens: number[] } {
  const tokens = metadata.strings(`${TOKENIZER}tokens`);
  const ids = ['eos', 'eot', 'eom'].map((name) => metadata.number(`${TOKENIZER}${name}_token_id`));
  const named = tokens.flatMap((token, id) => (END_NAMES.has(token) ? [id] : []));
  const [end = 0, ...stops] = new Set([...ids, ...named].filter((id) => id !== undefined && id < tokens.length));
  return { end_of_text: end as number, stop_tokens: stops as number[] };
}

/**
 * Returns the token that precedes every text, or null. If the metadata does not say, the kind of tokenizer decides, as
 * in llama.cpp.
 */
function beginOfText(metadata: Metadata): number | null {
  const model = metadata.text(`${TOKENIZER}model`);
  const usual = model === 'llama' || model === 'bert' || BOS_SPLITS.has(metadata.text(`${TOKENIZER}pre`) ?? '');
  const added = metadata.flag(`${TOKENIZER}add_bos_token`) ?? usual;
  return added ? (metadata.number(`${TOKENIZER}bos_token_id`) ?? null) : null;
}

/** Returns the name of the weights' format, such as Q4_K_M. */
function quantisation(library: Library, path: string, metadata: Metadata): string {
  const type = metadata.number('general.file_type');
  const known = type === undefined ? undefined : library.GGMLFileQuantizationType[type];
  return known ?? library.parseGGUFQuantLabel(basename(path)) ?? 'unknown';
}

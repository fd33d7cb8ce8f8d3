import { createHash } from 'node:crypto';
import { createReadStream, existsSync } from 'node:fs';
import { readFile, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { pipeline } from 'node:stream/promises';
import { z } from 'zod';
import { PtpError } from './errors.ts';
import { isGguf } from './gguf-files.ts';
import { CANDIDATE_LIMIT, ggufManifest } from './gguf-manifest.ts';
import { huggingFaceManifest } from './hf-manifest.ts';
import { uniformsPerPosition } from './sampling-params.ts';

const count = z.int().positive();
const token = z.int().nonnegative();
const sha256 = z.string().regex(/^[0-9a-f]{64}$/);

/**
 * Content of a model folder's manifest.json, written by training/src/ptp_train/export/manifest.py, or the same keys read
 * from a GGUF file (gguf-manifest.ts) or a Hugging Face folder (hf-manifest.ts). Informational keys (corpus, recipe,
 * measurements) are not validated.
 */
const manifestSchema = z
  .looseObject({
    format_version: z.literal(1),
    id: z.string().min(1),
    created: z.string(),
    /** Runtime that the model's files are for. */
    engine: z.enum(['onnx', 'llama-cpp', 'torch']).default('onnx'),
    /** Number format of the target's matrix products, or the type of a GGUF file, such as Q4_K_M. */
    quantisation: z.string().optional(),
    target: z
      .looseObject({
        precision: z.string().optional(),
        /** Slot counts of the target's graphs, in ascending order, if they are not those of `max_slots`. */
        slots: z.array(count).min(1).optional(),
        /**
         * `in_place` if the graphs write new rows into the caches, and accept empty slots. Otherwise the graphs return the
         * new rows, and each slot must have at least two tokens.
         */
        caches: z.enum(['in_place']).optional(),
        /** Number format of keys and values in the caches. Default: float32. */
        cache_type: z.enum(['float16', 'float32']).optional(),
        /** `gpu` if the graphs keep the caches on a GPU, and use only operations that WebGPU has. */
        device: z.literal('gpu').optional(),
        /** Minimum number of rows in a slot. Slots with fewer tokens are padded. Default: 2. */
        min_rows: z.literal([1, 2]).optional(),
      })
      .refine(({ caches, cache_type: type }) => caches === 'in_place' || type !== 'float16', {
        path: ['cache_type'],
        error: 'must be float32 unless `caches` is in_place, got float16',
      })
      .refine(({ caches, device }) => caches !== 'in_place' || device !== 'gpu', {
        path: ['device'],
        error: 'must be absent if `caches` is in_place, got gpu',
      })
      .optional(),
    sizes: z.looseObject({ vocab: count, width: count, layers: count, kv_heads: count, head_width: count }),
    context_length: count,
    end_of_text: token,
    /** Additional end-of-text tokens. */
    stop_tokens: z.array(token).default([]),
    /** Token that precedes every text, or null if there is none. Default: end_of_text. */
    begin_of_text: token.nullable().optional(),
    /** True for a GGUF file or a Hugging Face folder with a chat template; model folders have a file for it. */
    has_chat_template: z.boolean().optional(),
    /** Method by which the graphs pick a token. Older folders lack this key and use `cdf`. */
    pick: z.enum(['cdf', 'tree']).default('cdf'),
    uniforms_per_position: count,
    /**
     * The engine samples only from this many of the most probable tokens, or from a request's top_k if that is larger.
     * Absent if the engine samples from all tokens.
     */
    candidate_limit: count.optional(),
    /** Slot counts for which graphs exist, in ascending order. */
    max_slots: z.array(count).min(1),
    bytes_per_token: z.object({ target: count, drafter: count.optional() }),
    /** Drafter of the model. If it is absent, the model is decoded without drafts. */
    drafter: z
      .looseObject({
        /**
         * Kind of the drafter (training/src/ptp_train/model/drafter.py). A `feature` drafter contains the whole target
         * and checks blocks with it.
         */
        kind: z.enum(['feature', 'reader', 'lora', 'separate']).default('reader'),
        source: z.array(z.int().nonnegative()).min(1),
        /** Sizes that differ from the target's. */
        sizes: z.looseObject({ kv_heads: count, head_width: count }).optional(),
        max_branch_length: count,
        yield_curve: z.array(z.number().nonnegative()).min(2),
        /** Yield of branches that start after a rejected token. Absent in older folders. */
        yield_curve_after_miss: z.array(z.number().nonnegative()).min(2).optional(),
        accuracy_by_position: z.array(z.number()),
      })
      .optional(),
    tokenizer: z.object({ sha256 }),
    files: z.record(z.string(), z.object({ sha256, bytes: z.int().nonnegative() })),
  })
  .superRefine(({ pick, sizes, uniforms_per_position: actual }, context) => {
    const expected = uniformsPerPosition(pick, sizes.vocab);
    if (actual === expected) return;
    const message = `must be ${expected} for \`pick\` ${pick} and a vocabulary of ${sizes.vocab}, got ${actual}`;
    context.addIssue({ code: 'custom', path: ['uniforms_per_position'], message });
  })
  .transform((manifest) => ({
    ...manifest,
    quantisation: manifest.quantisation ?? manifest.target?.precision ?? 'float32',
  }));

export { CANDIDATE_LIMIT, isGguf };

/**
 * Maximum context length of a GGUF file or a Hugging Face folder unless a setting allows more. Models allow 131,072
 * tokens or more, but few machines can hold a KV cache of that size.
 */
const USUAL_CONTEXT = 8192;
export type Manifest = z.infer<typeof manifestSchema>;

/** Returns true if the path is a Hugging Face folder, which has config.json but no manifest.json. */
export function isHuggingFaceFolder(path: string): boolean {
  return !existsSync(join(path, 'manifest.json')) && existsSync(join(path, 'config.json'));
}

/**
 * Describes a model: the manifest.json of a folder, the metadata of a GGUF file, or the files of a Hugging Face folder.
 *
 * @param path path of the folder or of the GGUF file
 * @param contextLength maximum length of a sequence in tokens, reduced to the context length of the model if that is
 *   smaller. With 0, the context length of the model is used, but at most USUAL_CONTEXT unless the model is a folder with
 *   a manifest.json
 * @throws PtpError `failed_precondition` if the model is missing, damaged or cannot be read by this version
 */
export async function loadManifest(path: string, contextLength = 0): Promise<Manifest> {
  const manifest = isGguf(path) ? manifestSchema.parse(await ggufManifest(path)) : await folderManifest(path);
  const limit = contextLength || (manifest.engine === 'onnx' ? Number.POSITIVE_INFINITY : USUAL_CONTEXT);
  return { ...manifest, context_length: Math.min(manifest.context_length, limit) };
}

async function folderManifest(dir: string): Promise<Manifest> {
  if (isHuggingFaceFolder(dir)) return manifestSchema.parse(await huggingFaceManifest(dir));
  let content: unknown;
  try {
    content = JSON.parse(await readFile(join(dir, 'manifest.json'), 'utf8'));
  } catch (cause) {
    throw broken('`manifest.json` is missing or is not JSON', cause);
  }
  const result = manifestSchema.safeParse(content);
  if (result.success) return result.data;
  const [issue] = result.error.issues;
  throw broken(`\`${issue?.path.join('.')}\` in \`manifest.json\`: ${issue?.message}`, result.error);
}

/**
 * Verifies the size and SHA-256 of files in a model folder against the manifest.
 *
 * @throws PtpError `failed_precondition` naming the first file that is missing, truncated or changed
 */
export async function checkFiles(dir: string, manifest: Manifest, names: readonly string[]): Promise<void> {
  for (const name of names) {
    const entry = manifest.files[name];
    if (!entry) throw broken(`\`${name}\` is not listed in \`manifest.json\``);
    const path = join(dir, name);
    const size = await stat(path).then(
      ({ size }) => size,
      (cause: unknown) => {
        throw broken(`\`${name}\` cannot be read`, cause);
      },
    );
    if (size !== entry.bytes) throw broken(`\`${name}\` must have ${entry.bytes} bytes, got ${size}`);
    const hash = createHash('sha256');
    await pipeline(createReadStream(path), hash);
    if (hash.digest('hex') !== entry.sha256) throw broken(`\`${name}\` does not have the SHA-256 in \`manifest.json\``);
  }
}

function broken(message: string, cause?: unknown): PtpError {
  return new PtpError('failed_precondition', `model folder: ${message}`, cause === undefined ? {} : { cause });
}

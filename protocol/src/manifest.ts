import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { readFile, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { pipeline } from 'node:stream/promises';
import { z } from 'zod';
import { PtpError } from './errors.ts';
import { uniformsPerPosition } from './pick-kind.ts';

const count = z.int().positive();
const token = z.int().nonnegative();
const sha256 = z.string().regex(/^[0-9a-f]{64}$/);

/**
 * manifest.json of a model folder, which training/src/ptp_train/export/manifest.py writes. Keys that only a reader wants (corpus, recipe,
 * figures of the target) are let through unchecked.
 */
const manifestSchema = z
  .looseObject({
    format_version: z.literal(1),
    id: z.string().min(1),
    created: z.string(),
    sizes: z.looseObject({ vocab: count, width: count, layers: count, kv_heads: count, head_width: count }),
    context_length: count,
    end_of_text: token,
    /** Tokens beside end_of_text that end a text too. */
    stop_tokens: z.array(token).default([]),
    /** What stands before every text: a token, or null for nothing; end_of_text where it isn't given. */
    begin_of_text: token.nullable().optional(),
    /** How the graphs pick a token; folders from before there was a choice have `cdf`. */
    pick: z.enum(['cdf', 'tree']).default('cdf'),
    uniforms_per_position: count,
    /** Slot counts that graphs exist for, ascending. */
    max_slots: z.array(count).min(1),
    bytes_per_token: z.object({ target: count, drafter: count.optional() }),
    /** Missing in a folder of a target alone, which is decoded plainly. */
    drafter: z
      .looseObject({
        /** See training/src/ptp_train/model/drafter.py; a `feature` drafter holds the whole target and checks blocks with it. */
        kind: z.enum(['feature', 'reader', 'lora', 'separate']).default('reader'),
        source: z.array(z.int().nonnegative()).min(1),
        /** Of a drafter that is not of the target's sizes. */
        sizes: z.looseObject({ kv_heads: count, head_width: count }).optional(),
        max_branch_length: count,
        yield_curve: z.array(z.number().nonnegative()).min(2),
        /** Of branches from where a draft went wrong; folders from before this was measured have none. */
        yield_curve_after_miss: z.array(z.number().nonnegative()).min(2).optional(),
        accuracy_by_position: z.array(z.number()),
      })
      .optional(),
    tokenizer: z.object({ sha256 }),
    files: z.record(z.string(), z.object({ sha256, bytes: z.int().nonnegative() })),
  })
  .superRefine(({ pick, sizes, uniforms_per_position: given }, context) => {
    const wanted = uniformsPerPosition(pick, sizes.vocab);
    if (given === wanted) return;
    const message = `must be ${wanted} for \`pick\` ${pick} and a vocabulary of ${sizes.vocab}, got ${given}`;
    context.addIssue({ code: 'custom', path: ['uniforms_per_position'], message });
  });

export type Manifest = z.infer<typeof manifestSchema>;

/** @throws PtpError `failed_precondition` if manifest.json is missing or is not one that this version reads */
export async function loadManifest(dir: string): Promise<Manifest> {
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
 * Compares files of a model folder with their size and SHA-256 in the manifest.
 *
 * @throws PtpError `failed_precondition` naming the first file that is missing, cut short or changed
 */
export async function checkFiles(dir: string, manifest: Manifest, names: readonly string[]): Promise<void> {
  for (const name of names) {
    const entry = manifest.files[name];
    if (!entry) throw broken(`\`${name}\` is not listed in \`manifest.json\``);
    const path = join(dir, name);
    const size = await stat(path).then(
      (facts) => facts.size,
      (cause: unknown) => {
        throw broken(`\`${name}\` cannot be read`, cause);
      },
    );
    if (size !== entry.bytes) throw broken(`\`${name}\` must have ${entry.bytes} bytes, has ${size}`);
    const hash = createHash('sha256');
    await pipeline(createReadStream(path), hash);
    if (hash.digest('hex') !== entry.sha256) throw broken(`\`${name}\` does not have the SHA-256 in \`manifest.json\``);
  }
}

function broken(message: string, cause?: unknown): PtpError {
  return new PtpError('failed_precondition', `model folder: ${message}`, cause === undefined ? {} : { cause });
}

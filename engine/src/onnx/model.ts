import { createRequire } from 'node:module';
import { join } from 'node:path';
import { PtpError } from '@ptp/protocol/errors';
import { checkFiles, loadManifest, type Manifest } from '@ptp/protocol/manifest';
import type { EngineInfo, EngineOptions } from '../types.ts';
import { MIN_ROWS } from './context-feeds.ts';

const { version }: { version: string } = createRequire(import.meta.url)('onnxruntime-node/package.json');

export type ModelKind = 'target' | 'drafter';

/** Description of a target or drafter for the worker thread. */
export interface OnnxModel {
  readonly kind: ModelKind;
  /** True if the drafter checks blocks; see `DraftEngine.checksBlocks`. */
  readonly checksBlocks: boolean;
  /** One graph for each number of slots, in ascending order. */
  readonly graphs: readonly { readonly slots: number; readonly path: string }[];
  /** Number of layers with a KV cache. */
  readonly layers: number;
  /** Number of key/value heads. */
  readonly heads: number;
  /** Number of floats in one row of keys or values, for all heads. */
  readonly rowWidth: number;
  /** True if the graphs write new rows into the caches. */
  readonly inPlace: boolean;
  /** True if the graphs keep keys and values in float16. */
  readonly halfCaches: boolean;
  /** True if the graphs take and return whole caches, which stay on the GPU. */
  readonly onDevice: boolean;
  /** Minimum number of rows of a slot: slots with fewer tokens are padded. */
  readonly minRows: number;
  readonly info: EngineInfo;
  readonly device: 'cpu' | 'webgpu';
  readonly threads: number;
  readonly prefixCacheBytes: number;
}

/**
 * Reads the manifest of a model folder, and compares the files of its target or drafter with the manifest.
 *
 * @throws PtpError `failed_precondition` if files are missing or damaged, or if the folder has no drafter
 */
export async function loadModel(
  kind: ModelKind,
  options: EngineOptions,
): Promise<{ model: OnnxModel; manifest: Manifest }> {
  const { dir, contextLength, prefixCacheBytes = 0, logger } = options;
  const manifest = await loadManifest(dir, contextLength);
  const { sizes } = manifest;
  const target = kind === 'target' ? manifest.target : undefined;
  const slotCounts = target?.slots ?? manifest.max_slots;
  const inPlace = target?.caches === 'in_place';
  const drafter = kind === 'drafter' ? drafterOf(manifest) : undefined;
  const checksBlocks = drafter?.kind === 'feature';
  const heads = drafter?.sizes ?? sizes;
  const requested = options.threads || 1;
  // With more threads than heads, onnxruntime would divide the sums over a cache, in an order that depends on
  // the run.
  const threads = inPlace ? Math.min(requested, heads.kv_heads) : requested;
  if (threads < requested) {
    logger?.warn({ requested, threads }, 'the target uses at most one thread per key/value head');
  }
  const graphs = slotCounts.map((slots) => ({ slots, name: `${kind}.b${slots}.onnx` }));
  await checkFiles(dir, manifest, [`${kind}.weights`, ...graphs.map(({ name }) => name)]);
  const model: OnnxModel = {
    kind,
    checksBlocks,
    graphs: graphs.map(({ slots, name }) => ({ slots, path: join(dir, name) })),
    // A drafter with planned branches takes the target's states up to the last layer of `source` as input.
    layers: drafter && !checksBlocks ? Math.max(...drafter.source) + 1 : sizes.layers,
    heads: heads.kv_heads,
    rowWidth: heads.kv_heads * heads.head_width,
    inPlace,
    halfCaches: target?.cache_type === 'float16',
    onDevice: target?.device === 'gpu',
    minRows: target?.min_rows ?? MIN_ROWS,
    info: {
      vocabulary: sizes.vocab,
      contextLength: manifest.context_length,
      uniformsPerPosition: manifest.uniforms_per_position,
      maxSlots: Math.max(...slotCounts),
      maxSequences: Number.POSITIVE_INFINITY,
      bytesPerToken: manifest.bytes_per_token[kind] ?? 0,
      // The manifest has the hashes of the model's files.
      fingerprint: [manifest, `onnxruntime-node ${version}`, threads],
      device: 'cpu',
    },
    device: 'cpu',
    threads,
    prefixCacheBytes,
  };
  return { model, manifest };
}

/** Returns the drafter of a manifest. @throws PtpError `failed_precondition` if the folder contains only a target */
export function drafterOf({ drafter }: Manifest): NonNullable<Manifest['drafter']> {
  if (drafter) return drafter;
  throw new PtpError(
    'failed_precondition',
    '`manifest.json` of the model folder must have `drafter`: this folder contains only a target',
  );
}

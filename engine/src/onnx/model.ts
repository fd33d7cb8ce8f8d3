import { join } from 'node:path';
import { PtpError } from '@ptp/protocol/errors';
import { checkFiles, loadManifest, type Manifest } from '@ptp/protocol/manifest';
import type { EngineInfo, EngineOptions } from '../types.ts';

export type ModelKind = 'target' | 'drafter';

/** A model folder's target or drafter, as its thread needs it. */
export interface OnnxModel {
  readonly kind: ModelKind;
  /** True for a drafter that predicts how much of a block is right. */
  readonly checksBlocks: boolean;
  /** One graph per number of slots, ascending. */
  readonly graphs: readonly { readonly slots: number; readonly path: string }[];
  /** Layers with a cache. */
  readonly layers: number;
  /** Floats in a layer's row of keys. */
  readonly rowWidth: number;
  readonly info: EngineInfo;
  readonly threads: number;
  readonly prefixCacheBytes: number;
}

/**
 * Describes a folder's target or drafter, after comparing its files with the manifest.
 *
 * @throws PtpError `failed_precondition` if files are missing or damaged, or if there is no drafter
 */
export async function loadModel(
  kind: ModelKind,
  options: EngineOptions,
): Promise<{ model: OnnxModel; manifest: Manifest }> {
  const { dir, contextLength, threads = 1, prefixCacheBytes = 0 } = options;
  const manifest = await loadManifest(dir, contextLength);
  const { sizes, max_slots: slotCounts } = manifest;
  const drafter = kind === 'drafter' ? drafterOf(manifest) : undefined;
  const checksBlocks = drafter?.kind === 'feature';
  const heads = drafter?.sizes ?? sizes;
  const graphs = slotCounts.map((slots) => ({ slots, name: `${kind}.b${slots}.onnx` }));
  await checkFiles(dir, manifest, [`${kind}.weights`, ...graphs.map(({ name }) => name)]);
  const model: OnnxModel = {
    kind,
    checksBlocks,
    graphs: graphs.map(({ slots, name }) => ({ slots, path: join(dir, name) })),
    // A drafter that plans branches reads the target's states up to the last layer of `source`.
    layers: drafter && !checksBlocks ? Math.max(...drafter.source) + 1 : sizes.layers,
    rowWidth: heads.kv_heads * heads.head_width,
    info: {
      vocabulary: sizes.vocab,
      contextLength: manifest.context_length,
      uniformsPerPosition: manifest.uniforms_per_position,
      maxSlots: Math.max(...slotCounts),
      bytesPerToken: manifest.bytes_per_token[kind] ?? 0,
    },
    threads,
    prefixCacheBytes,
  };
  return { model, manifest };
}

/** @throws PtpError `failed_precondition` if the folder holds a target alone */
export function drafterOf({ drafter }: Manifest): NonNullable<Manifest['drafter']> {
  if (drafter) return drafter;
  throw new PtpError('failed_precondition', 'model folder: `manifest.json` has no `drafter`: it is of a target alone');
}

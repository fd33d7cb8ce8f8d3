import { join } from 'node:path';
import { loadManifest } from '@ptp/protocol/manifest';
import { z } from 'zod';
import { readWeights, type Tensor } from './onnx-weights.ts';

const count = z.int().positive();

/** What a target has to be so that other engines have it as a Llama; the rest of `sizes` is checked by `loadManifest`. */
const llamaSchema = z.object({
  sizes: z.object({
    vocab: count,
    width: count,
    layers: count,
    heads: count,
    kv_heads: count,
    head_width: count,
    hidden: count,
    context: count,
    rope_theta: z.number(),
    epsilon: z.number(),
    tied: z.boolean(),
    qkv_bias: z.literal(false).default(false),
    qk_norm: z.literal(false).default(false),
    rope_scaling: z.array(z.number()).max(0).default([]),
  }),
  target: z.looseObject({ precision: z.literal('float32') }),
});
export type Sizes = z.infer<typeof llamaSchema>['sizes'];

export interface LlamaTarget {
  readonly id: string;
  readonly endOfText: number;
  readonly sizes: Sizes;
  /** A parameter by the name that `target_graph` in training/src/ptp_train/export/model_folder.py gives it. */
  parameter(name: string): Tensor;
}

/**
 * The target of a model folder, with the numbers that our engine computes with: float32.
 *
 * @throws ZodError naming what in manifest.json isn't a Llama's
 */
export async function readLlama(models: string): Promise<LlamaTarget> {
  const manifest = await loadManifest(models);
  const { sizes } = llamaSchema.parse(manifest);
  const weights = await readWeights(join(models, 'target.b1.onnx'));
  const parameter = (name: string): Tensor => {
    const tensor = weights.get(name);
    if (!tensor) throw new Error(`\`${name}\` is missing in \`target.b1.onnx\``);
    return tensor;
  };
  return { id: manifest.id, endOfText: manifest.end_of_text, sizes, parameter };
}

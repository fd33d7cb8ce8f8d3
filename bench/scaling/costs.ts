/** Run times that the simulation assumes: the roofline of a model on a GPU. Nothing in this file was measured. */

/** A decoder-only transformer, reduced to what determines the time of its runs. */
export interface Model {
  readonly name: string;
  readonly parameters: number;
  /** Per weight, and per element of a key or value. */
  readonly bytes: number;
  readonly layers: number;
  readonly kvHeads: number;
  readonly headSize: number;
}

export interface Gpu {
  readonly name: string;
  /** Bytes and floating-point operations per second that a run achieves. */
  readonly bandwidth: number;
  readonly operations: number;
}

/** Time of a run in microseconds: overhead + max(weights, perToken * tokens) + perContextToken * context. */
export interface CostCurve {
  /** Kernel launches, sampling and the copy of the answer, in every run. */
  readonly overhead: number;
  /** Reading all weights once, which bounds a run of few tokens. */
  readonly weights: number;
  /** Arithmetic of one token; it dominates beyond the knee at weights / perToken tokens. */
  readonly perToken: number;
  /** Reading the keys and values of one token of context, for each sequence of the run. */
  readonly perContextToken: number;
}

/** Sizes of Mistral 7B (arXiv 2310.06825): 7.24e9 parameters, 8 key-value heads of 128 in 32 layers; 16-bit weights. */
export const TARGET: Model = {
  name: '7B-class target',
  parameters: 7.24e9,
  bytes: 2,
  layers: 32,
  kvHeads: 8,
  headSize: 128,
};

/** A twenty-fourth of the target: 12 layers, 4 key-value heads of 128. */
export const DRAFTER: Model = {
  name: '0.3B-class drafter',
  parameters: 0.3e9,
  bytes: 2,
  layers: 12,
  kvHeads: 4,
  headSize: 128,
};

/** Sizes of Llama 3.2 1B: 16 layers, 8 key-value heads of 64. */
export const LARGER_DRAFTER: Model = {
  name: '1B-class drafter',
  parameters: 1.24e9,
  bytes: 2,
  layers: 16,
  kvHeads: 8,
  headSize: 64,
};

/** A drafter that checks blocks: the target in 8 bits, and layers of its own. */
export const CHECKING_DRAFTER: Model = {
  ...TARGET,
  name: 'drafter with the target in 8 bits',
  parameters: 7.54e9,
  bytes: 1,
};

/**
 * H100 SXM: 3.35 TB/s and 989 TFLOP/s (bfloat16, dense) by its data sheet. Good kernels reach 80 % of the bandwidth. Half of the
 * arithmetic, because batch-invariant kernels, which exactness needs, give some of it up.
 */
export const GPU: Gpu = { name: 'H100-class GPU', bandwidth: 0.8 * 3.35e12, operations: 0.5 * 989e12 };

/** Microseconds per run: some ten kernels a layer at 2 to 3 microseconds each, and the round trip to the host. */
export const OVERHEAD = { target: 1000, drafter: 500 } as const;

/** @param overhead microseconds */
export function curveOf(model: Model, gpu: Gpu, overhead: number): CostCurve {
  const micros = 1e6;
  return {
    overhead,
    weights: (micros * model.parameters * model.bytes) / gpu.bandwidth,
    // a multiplication and an addition per weight (Kaplan et al. 2020, arXiv 2001.08361, section 2.1)
    perToken: (micros * 2 * model.parameters) / gpu.operations,
    perContextToken: (micros * bytesPerContextToken(model)) / gpu.bandwidth,
  };
}

/** Bytes of a token's keys and values. */
export function bytesPerContextToken({ bytes, layers, kvHeads, headSize }: Model): number {
  return 2 * layers * kvHeads * headSize * bytes;
}

/** Microseconds of a run. @param tokens of all its sequences @param context cached tokens of all its sequences */
export function runMicros(curve: CostCurve, tokens: number, context: number): number {
  return curve.overhead + Math.max(curve.weights, curve.perToken * tokens) + curve.perContextToken * context;
}

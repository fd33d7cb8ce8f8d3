/** Run times that the simulation assumes: the roofline of a model on a GPU. Nothing in this file was measured. */

/** A decoder-only transformer, reduced to what determines the time of its runs. */
export interface Model {
  readonly name: string;
  readonly parameters: number;
  /** Bytes per weight, and per element of a key or value. */
  readonly bytes: number;
  readonly layers: number;
  readonly kvHeads: number;
  readonly headSize: number;
}

export interface Gpu {
  readonly name: string;
  /** Bytes per second that a run achieves. */
  readonly bandwidth: number;
  /** Floating-point operations per second that a run achieves. */
  readonly operations: number;
}

/** Time of a run in microseconds: overhead + max(weights, perToken * tokens) + perContextToken * context. */
export interface CostCurve {
  /** Fixed cost of every run: kernel launches, sampling and copying the results. */
  readonly overhead: number;
  /** Time to read all weights once. It is the lower bound for runs of few tokens. */
  readonly weights: number;
  /** Time of the arithmetic for one token. It dominates in runs of more than weights / perToken tokens. */
  readonly perToken: number;
  /** Time to read the keys and values of one context token of one sequence. */
  readonly perContextToken: number;
}

/** A target with the sizes of Mistral 7B (arXiv 2310.06825): 7.24e9 parameters, 32 layers, 8 key-value heads of 128; 16-bit weights. */
export const TARGET: Model = {
  name: '7B-class target',
  parameters: 7.24e9,
  bytes: 2,
  layers: 32,
  kvHeads: 8,
  headSize: 128,
};

/** A drafter of one 24th of the target: 12 layers, 4 key-value heads of 128. */
export const DRAFTER: Model = {
  name: '0.3B-class drafter',
  parameters: 0.3e9,
  bytes: 2,
  layers: 12,
  kvHeads: 4,
  headSize: 128,
};

/** A drafter with the sizes of Llama 3.2 1B: 16 layers, 8 key-value heads of 64. */
export const LARGER_DRAFTER: Model = {
  name: '1B-class drafter',
  parameters: 1.24e9,
  bytes: 2,
  layers: 16,
  kvHeads: 8,
  headSize: 64,
};

/** A drafter that checks blocks. It consists of the target in 8 bits and some layers of its own. */
export const CHECKING_DRAFTER: Model = {
  ...TARGET,
  name: 'drafter with the target in 8 bits',
  parameters: 7.54e9,
  bytes: 1,
};

/**
 * H100 SXM: 3.35 TB/s and 989 TFLOP/s (bfloat16, dense) according to its data sheet. Good kernels reach 80 % of the bandwidth. We assume
 * half of the arithmetic rate, because exact results require batch-invariant kernels, which are slower.
 */
export const GPU: Gpu = { name: 'H100-class GPU', bandwidth: 0.8 * 3.35e12, operations: 0.5 * 989e12 };

/** Microseconds per run: about ten kernels per layer at 2 to 3 microseconds each, and the round trip to the host. */
export const OVERHEAD = { target: 1000, drafter: 500 } as const;

/** @param overhead microseconds */
export function curveOf(model: Model, gpu: Gpu, overhead: number): CostCurve {
  const micros = 1e6;
  return {
    overhead,
    weights: (micros * model.parameters * model.bytes) / gpu.bandwidth,
    // each weight takes a multiplication and an addition (Kaplan et al. 2020, arXiv 2001.08361, section 2.1)
    perToken: (micros * 2 * model.parameters) / gpu.operations,
    perContextToken: (micros * bytesPerContextToken(model)) / gpu.bandwidth,
  };
}

/** Number of bytes of one token's keys and values in all layers. */
export function bytesPerContextToken({ bytes, layers, kvHeads, headSize }: Model): number {
  return 2 * layers * kvHeads * headSize * bytes;
}

/** Microseconds of a run. @param tokens total of all sequences in the run @param context cached tokens of all sequences in the run */
export function runMicros(curve: CostCurve, tokens: number, context: number): number {
  return curve.overhead + Math.max(curve.weights, curve.perToken * tokens) + curve.perContextToken * context;
}

/** Run times that the simulation assumes, from the roofline model of a GPU. Nothing in this file was measured. */

/** Sizes of a decoder-only transformer that determine its run times. */
export interface Model {
  readonly parameters: number;
  /** Number of bytes per weight, and per element of a key or value. */
  readonly bytes: number;
  readonly layers: number;
  readonly kvHeads: number;
  readonly headSize: number;
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

/** A target with the sizes of Mistral 7B (arXiv 2310.06825) in 16 bits. */
export const TARGET: Model = { parameters: 7.24e9, bytes: 2, layers: 32, kvHeads: 8, headSize: 128 };

/** A drafter with one 24th of the target's parameters. */
export const DRAFTER: Model = { parameters: 0.3e9, bytes: 2, layers: 12, kvHeads: 4, headSize: 128 };

/** A drafter that checks blocks. It consists of the target in 8 bits and some layers of its own. */
export const CHECKING_DRAFTER: Model = { ...TARGET, parameters: 7.54e9, bytes: 1 };

/**
 * Rates that runs achieve on an H100 SXM. Its data sheet says 3.35 TB/s and 989 TFLOP/s (bfloat16, dense). Good kernels
 * reach 80 % of the bandwidth. We assume half of the arithmetic rate, because exact results require batch-invariant
 * kernels, which are slower.
 */
const GPU = { bytesPerSecond: 0.8 * 3.35e12, operationsPerSecond: 0.5 * 989e12 };

/**
 * Fixed time in microseconds per run: about ten kernels per layer at 2 to 3 microseconds each, and the round trip to
 * the host.
 */
export const OVERHEAD = { target: 1000, drafter: 500 } as const;

/** @param overhead fixed cost of a run in microseconds */
export function curveOf({ parameters, bytes, layers, kvHeads, headSize }: Model, overhead: number): CostCurve {
  const microsPerByte = 1e6 / GPU.bytesPerSecond;
  return {
    overhead,
    weights: microsPerByte * parameters * bytes,
    // Each weight takes a multiplication and an addition (Kaplan et al. 2020, arXiv 2001.08361, section 2.1).
    perToken: (1e6 * 2 * parameters) / GPU.operationsPerSecond,
    perContextToken: microsPerByte * 2 * layers * kvHeads * headSize * bytes,
  };
}

/**
 * Returns the duration of a run in microseconds.
 *
 * @param tokens number of tokens of all sequences in the run
 * @param context number of cached tokens of all sequences of the run
 */
export function runMicros(curve: CostCurve, tokens: number, context: number): number {
  return curve.overhead + Math.max(curve.weights, curve.perToken * tokens) + curve.perContextToken * context;
}

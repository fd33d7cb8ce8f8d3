import type { SamplingParameters } from './gen/ptp/v1/common_pb.ts';
import { requireField } from './validation.ts';

/**
 * Method by which a position's uniforms pick its token. Both methods are exact: if the inputs are uniform random
 * numbers, each token is picked with exactly its probability.
 *
 * - `cdf`: one uniform, inverse transform sampling as in the PTP paper (arXiv 2512.21323)
 * - `tree`: ceil(log2 V) uniforms, a walk down a binary tree over the token ids
 */
export type PickKind = 'cdf' | 'tree';

/** Returns D, the number of uniforms per position: 1 for `cdf`; ceil(log2 vocabulary), at least 1, for `tree`. */
export function uniformsPerPosition(kind: PickKind, vocabulary: number): number {
  return kind === 'cdf' ? 1 : treeDepth(vocabulary);
}

/** Returns the number of levels of the binary tree over `vocabulary` tokens, at least 1. */
export function treeDepth(vocabulary: number): number {
  return Math.max(1, 32 - Math.clz32(vocabulary - 1));
}

/** Parameters that shape a distribution before a token is picked from it. */
export interface SamplingParams {
  /** Divisor of the logits, in [0, 2]. 0 picks the most probable token. */
  readonly temperature: number;
  /** Number of most probable tokens to keep, in [1, vocabulary size]. 0 keeps all tokens. */
  readonly topK: number;
  /**
   * Probability that the kept tokens reach together, starting with the most probable one. Must be in (0, 1]. 1 keeps
   * all tokens.
   */
  readonly topP: number;
  /**
   * Minimum probability of a token, relative to the most probable one. Must be in [0, 1]. 0 keeps all tokens. Applied
   * before top-k and top-p. Default: 0.
   */
  readonly minP?: number;
}

/** Default for requests: sampling from the model's own distribution. */
export const defaultSampling: SamplingParams = { temperature: 1, topK: 0, topP: 1 };

/**
 * Validates a request's sampling parameters and fills in defaults.
 *
 * @param values the client's values; undefined and null mean the default
 * @param vocabularySize size of the target's vocabulary, the upper limit of top-k
 * @throws PtpError `invalid_argument` with the field's name on the wire (`temperature`, `top_k`, `top_p`, `min_p`)
 */
export function samplingParams(
  values: { readonly [K in keyof SamplingParams]?: SamplingParams[K] | null | undefined },
  vocabularySize: number,
): SamplingParams {
  const temperature = values.temperature ?? defaultSampling.temperature;
  const topK = values.topK ?? defaultSampling.topK;
  const topP = values.topP ?? defaultSampling.topP;
  const minP = values.minP ?? 0;
  requireField(temperature >= 0 && temperature <= 2, 'temperature', 'in [0, 2]', temperature);
  const topKLimit = `0 (off) or an integer in [1, ${vocabularySize}]`;
  requireField(Number.isInteger(topK) && topK >= 0 && topK <= vocabularySize, 'top_k', topKLimit, topK);
  requireField(topP > 0 && topP <= 1, 'top_p', 'in (0, 1]', topP);
  requireField(minP >= 0 && minP <= 1, 'min_p', 'in [0, 1]', minP);
  // Truncation does not affect greedy decoding. Drafters take these parameters as inputs, so greedy decoding always
  // uses the same ones.
  if (temperature < GREEDY_BELOW) return { temperature: 0, topK: 0, topP: 1 };
  return { temperature, topK, topP: Math.max(topP, MIN_TOP_P), ...(minP > 0 && { minP }) };
}

/**
 * Validates the sampling parameters of a message. Absent parameters get their defaults. Floats arrive as float32, the
 * precision of sampling.
 */
export function receivedSampling(sampling: SamplingParameters | undefined, vocabulary: number): SamplingParams {
  if (!sampling) return samplingParams({}, vocabulary);
  const { temperature, topK, topP, minP } = sampling;
  return samplingParams({ temperature, topK, topP: topP === 0 ? 1 : topP, minP }, vocabulary);
}

/**
 * Temperatures below this count as greedy, because dividing logits by a smaller number may overflow float32. The most
 * probable token becomes certain at far higher temperatures.
 */
const GREEDY_BELOW = 1e-4;
/** Minimum top-p. It keeps a single token, as any smaller value would, and is above 0 in float32. */
const MIN_TOP_P = 1e-6;

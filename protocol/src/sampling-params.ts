import type { SamplingParameters } from './gen/ptp/v1/common_pb.ts';
import { requireField } from './validation.ts';

/** How a distribution is shaped before a token is picked from it. */
export interface SamplingParams {
  /** Divides the logits, in [0, 2]; 0 means the most probable token. */
  readonly temperature: number;
  /** Tokens kept, in [1, vocabulary size]; 0 keeps all. */
  readonly topK: number;
  /** Probability mass kept, in (0, 1]; 1 keeps all. */
  readonly topP: number;
  /** Tokens kept by their probability relative to the most probable one's, in [0, 1]; 0, or absent, keeps all. Before top-k and top-p. */
  readonly minP?: number;
}

/** What a request that says nothing gets: the model's own distribution. */
export const defaultSampling: SamplingParams = { temperature: 1, topK: 0, topP: 1 };

/**
 * A request's sampling parameters, checked, with defaults for what it leaves out.
 *
 * @param given what the client sent; undefined and null mean the default
 * @param vocabularySize tokens in the target's vocabulary, the upper limit of top-k
 * @throws PtpError `invalid_argument` with the field as it is spelt on the wire (`temperature`, `top_k`, `top_p`, `min_p`)
 */
export function samplingParams(
  given: { readonly [K in keyof SamplingParams]?: SamplingParams[K] | null | undefined },
  vocabularySize: number,
): SamplingParams {
  const temperature = given.temperature ?? defaultSampling.temperature;
  const topK = given.topK ?? defaultSampling.topK;
  const topP = given.topP ?? defaultSampling.topP;
  const minP = given.minP ?? 0;
  requireField(temperature >= 0 && temperature <= 2, 'temperature', 'in [0, 2]', temperature);
  const topKLimit = `0 (off) or an integer in [1, ${vocabularySize}]`;
  requireField(Number.isInteger(topK) && topK >= 0 && topK <= vocabularySize, 'top_k', topKLimit, topK);
  requireField(topP > 0 && topP <= 1, 'top_p', 'in (0, 1]', topP);
  requireField(minP >= 0 && minP <= 1, 'min_p', 'in [0, 1]', minP);
  // Greedy has no use for a truncation, and a drafter knows it by one set of conditions only.
  if (temperature < GREEDY_BELOW) return { temperature: 0, topK: 0, topP: 1 };
  return { temperature, topK, topP: Math.max(topP, LEAST_TOP_P), ...(minP > 0 && { minP }) };
}

/**
 * Sampling parameters as a message brings them, checked; the defaults where there are none. Floats arrive as float32, which is
 * what shaping works in.
 */
export function receivedSampling(sampling: SamplingParameters | undefined, vocabulary: number): SamplingParams {
  if (!sampling) return samplingParams({}, vocabulary);
  const { temperature, topK, topP, minP } = sampling;
  return samplingParams({ temperature, topK, topP: topP === 0 ? 1 : topP, minP }, vocabulary);
}

/** Logits divided by less may leave float32's range; the pick is the most probable token long before. */
const GREEDY_BELOW = 1e-4;
/** Keeps one token, as everything below does; stays above 0 in float32. */
const LEAST_TOP_P = 1e-6;

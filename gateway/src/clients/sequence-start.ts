import type { GenerationRequest } from '../decode/types.ts';

/**
 * Returns the message that opens a sequence at a service.
 *
 * @param tokens the prompt, followed by the tokens that have been committed
 */
export function sequenceStart({ prompt, sampling, seed }: GenerationRequest, tokens: readonly number[]) {
  const minP = sampling.minP ?? 0;
  return { tokens: [...tokens], sampling: { ...sampling, minP }, seed, firstPosition: tokens.length - prompt.length };
}

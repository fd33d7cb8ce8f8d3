import { setImmediate } from 'node:timers/promises';
import type { ModelInfo } from '../decode/types.ts';
import { encodeText, orBeginning, roomAfter } from '../text/encode.ts';
import type { Tokenizer } from '../text/tokenizer.ts';
import type { ChoiceRequest } from './choices.ts';
import type { CommonRequest } from './request.ts';

/**
 * Token ids of a completion's prompts; prompts given as token ids stay as they are. Yields to the event loop between
 * texts, so that other streams go on.
 *
 * @throws PtpError `out_of_range` if a text cannot fit the context
 */
export async function encodePrompts(
  prompts: readonly (string | readonly number[])[],
  tokenizer: Tokenizer,
  model: ModelInfo,
): Promise<(readonly number[])[]> {
  const encoded: (readonly number[])[] = [];
  for (const prompt of prompts) {
    if (encoded.length > 0) await setImmediate();
    encoded.push(typeof prompt === 'string' ? encodeText(prompt, tokenizer, model, 'prompt') : prompt);
  }
  return encoded;
}

/**
 * The choices of a request: n for each prompt, in the order of the prompts. Choice i of each prompt has seed + i mod
 * 2^64, so that a prompt gets the same text alone and together with others.
 *
 * @param prompts token ids; an empty prompt becomes the token that precedes every text
 * @param defaultMaxTokens limit for requests that have none; cut to what the context has left
 * @throws PtpError `out_of_range` if a prompt and the requested tokens do not fit the context
 */
export function choiceRequests(
  prompts: readonly (readonly number[])[],
  request: CommonRequest,
  defaultMaxTokens: number,
  model: ModelInfo,
  field: string,
): ChoiceRequest[] {
  const { logprobs } = request;
  const shared = { ...request.choice, ...(logprobs !== undefined && { logprobs: true, topCount: logprobs }) };
  return prompts.flatMap((ids) => {
    const prompt = orBeginning(ids, model);
    const room = roomAfter(prompt, request.maxTokens, model, field);
    const maxTokens = request.maxTokens ?? Math.min(defaultMaxTokens, room);
    return Array.from({ length: request.n }, (_, i) => {
      const seed = BigInt.asUintN(64, request.seed + BigInt(i));
      return { prompt, ...shared, seed, maxTokens, first: i === 0 };
    });
  });
}

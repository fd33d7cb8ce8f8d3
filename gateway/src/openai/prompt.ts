import { invalidField } from '@ptp/protocol/validation';
import { ownTurn } from '@ptp/service-kit/own-turn';
import type { ModelInfo } from '../decode/types.ts';
import { encodeText, orBeginning, roomAfter } from '../text/encode.ts';
import type { Tokenizer } from '../text/tokenizer.ts';
import type { ChoiceRequest } from './choices.ts';
import type { CommonRequest } from './request.ts';

/**
 * Encodes a completion's prompts. Prompts that are already token ids stay unchanged. Yields to the event loop between
 * texts, so that other streams can continue.
 *
 * @param special true to encode names of special tokens in the texts as these tokens
 * @throws PtpError `out_of_range` if a text cannot fit the context
 */
export async function encodePrompts(
  prompts: readonly (string | readonly number[])[],
  tokenizer: Tokenizer,
  model: ModelInfo,
  special: boolean,
): Promise<(readonly number[])[]> {
  const encoded: (readonly number[])[] = [];
  for (const prompt of prompts) {
    if (encoded.length > 0) await ownTurn();
    encoded.push(typeof prompt === 'string' ? encodeText(prompt, tokenizer, model, 'prompt', special) : prompt);
  }
  return encoded;
}

/**
 * Returns the choices of a request: n for each prompt, in the order of the prompts. Choice i of each prompt gets the
 * seed (seed + i) mod 2^64, so a prompt gets the same text whether it is sent alone or with others.
 *
 * @param prompts token ids of the prompts. An empty prompt becomes the beginning-of-text token
 * @param defaultMaxTokens maximum number of tokens if the request sets none, reduced to the room that the context
 *   leaves
 * @throws PtpError `out_of_range` if a prompt leaves no room, `invalid_argument` if it leaves too little
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
    const room = roomAfter(prompt, model, field);
    const { value = Math.min(defaultMaxTokens, room), field: limitField } = request.maxTokens;
    if (value > room) {
      const requirement = `at most ${room} after a prompt of ${prompt.length} tokens, in a context of ${model.contextLength}`;
      throw invalidField(limitField, requirement, value);
    }
    return Array.from({ length: request.n }, (_, i) => {
      const seed = BigInt.asUintN(64, request.seed + BigInt(i));
      return { prompt, ...shared, seed, maxTokens: value, first: i === 0 };
    });
  });
}

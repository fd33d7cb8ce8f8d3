import { setImmediate } from 'node:timers/promises';
import { PtpError } from '@ptp/protocol/errors';
import { beginning, type ModelInfo } from '../decode/types.ts';
import type { Tokenizer } from '../text/tokenizer.ts';
import type { ChoiceRequest } from './choices.ts';
import type { CommonRequest } from './request.ts';

/**
 * Token ids of a text, after the token that the model has before every text.
 *
 * @throws PtpError `out_of_range` as `checkLength`
 */
export function encodeText(text: string, tokenizer: Tokenizer, model: ModelInfo, field: string): number[] {
  checkLength(text, tokenizer, model, field);
  return [...beginning(model), ...tokenizer.encode(text)];
}

/**
 * Token ids of a completion's prompts; those given as token ids are taken as they are. Between texts the event loop
 * gets its turn, as other streams are waiting.
 *
 * @throws PtpError `out_of_range` as `checkLength`
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
 * Spares us tokenising a text that is certain not to fit the context.
 *
 * @param field what to name in the error
 * @throws PtpError `out_of_range`
 */
export function checkLength(text: string, tokenizer: Tokenizer, model: ModelInfo, field: string): void {
  const least = Math.ceil(Buffer.byteLength(text) / tokenizer.longestToken);
  if (least >= model.contextLength) throw tooLong(model, `at least ${least}`, undefined, field);
}

/**
 * The choices of a request: n for each prompt, in the order of the prompts. Choice i of each prompt has seed + i mod
 * 2^64, so that a prompt gets the same text alone as among others.
 *
 * @param prompts token ids; an empty one becomes the token that begins a text, else the one that ends it
 * @param defaultMaxTokens when the request has none; cut to what the context has left
 * @throws PtpError `out_of_range` if a prompt and the tokens asked for do not fit the context
 */
export function choiceRequests(
  prompts: readonly (readonly number[])[],
  request: CommonRequest,
  defaultMaxTokens: number,
  model: ModelInfo,
  field: string,
): ChoiceRequest[] {
  return prompts.flatMap((ids) => {
    const prompt = orBeginning(ids, model);
    const room = model.contextLength - prompt.length;
    if (room < (request.maxTokens ?? 1)) throw tooLong(model, String(prompt.length), request.maxTokens, field);
    const maxTokens = request.maxTokens ?? Math.min(defaultMaxTokens, room);
    const { choosing, logprobs, stop, drafting, draftLimits, trace } = request;
    const told = logprobs === undefined ? {} : { logprobs: true, topCount: logprobs };
    return Array.from({ length: request.n }, (_, i) => {
      const seed = BigInt.asUintN(64, request.seed + BigInt(i));
      return { prompt, ...choosing, ...told, seed, maxTokens, stop, drafting, draftLimits, trace, first: i === 0 };
    });
  });
}

/** A prompt that has something to continue. */
export function orBeginning(ids: readonly number[], model: ModelInfo): readonly number[] {
  return ids.length > 0 ? ids : [beginning(model)[0] ?? model.endOfText];
}

function tooLong(model: ModelInfo, prompt: string, maxTokens: number | undefined, field: string): PtpError {
  const asked = maxTokens === undefined ? 'leaves no room for a completion' : `${maxTokens} were asked for`;
  const message = `This model's maximum context length is ${model.contextLength} tokens. However, the prompt has ${prompt} tokens and ${asked}`;
  return new PtpError('out_of_range', message, { field });
}

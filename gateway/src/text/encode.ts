import { PtpError } from '@ptp/protocol/errors';
import type { Tokenizer } from './tokenizer.ts';

/** Properties of a model that the encoding of its prompts depends on. */
export interface PromptModel {
  readonly contextLength: number;
  readonly endOfText: number;
  /** Token that precedes every text, or null if there is none. Default: `endOfText`. */
  readonly beginOfText?: number | null;
}

/** Returns the tokens that precede every text: one token, or none. */
export function beginning({ beginOfText, endOfText }: PromptModel): number[] {
  const token = beginOfText === undefined ? endOfText : beginOfText;
  return token === null ? [] : [token];
}

/** Returns the prompt, or a single token to continue from if the prompt is empty. */
export function orBeginning(ids: readonly number[], model: PromptModel): readonly number[] {
  return ids.length > 0 ? ids : [beginning(model)[0] ?? model.endOfText];
}

/** Returns the tokens of a text after the token that precedes every text, unless they begin with it. */
export function afterBeginning(ids: readonly number[], model: PromptModel): number[] {
  const begin = beginning(model);
  return ids[0] === begin[0] ? [...ids] : [...begin, ...ids];
}

/**
 * Returns the token ids of a text, including the token that precedes every text.
 *
 * @param special true to encode names of special tokens in the text as these tokens
 * @throws PtpError `out_of_range`, see {@link checkLength}
 */
export function encodeText(
  text: string,
  tokenizer: Tokenizer,
  model: PromptModel,
  field: string,
  special = false,
): number[] {
  checkLength(text, tokenizer, model, field);
  if (special) return afterBeginning(tokenizer.encodeRendered(text), model);
  return [...beginning(model), ...tokenizer.encode(text)];
}

/**
 * Rejects a text that cannot fit the context, without the cost of tokenizing it.
 *
 * @throws PtpError `out_of_range` naming `field`
 */
export function checkLength(text: string, tokenizer: Tokenizer, model: PromptModel, field: string): void {
  const fewest = Math.ceil(Buffer.byteLength(text) / tokenizer.longestToken);
  if (fewest >= model.contextLength) throw contextExceeded(model, `at least ${fewest}`, field);
}

/**
 * Returns the number of tokens that may follow a prompt, at least one.
 *
 * @throws PtpError `out_of_range` naming `field` if the prompt leaves no room
 */
export function roomAfter(prompt: readonly number[], model: PromptModel, field: string): number {
  const room = model.contextLength - prompt.length;
  if (room < 1) throw contextExceeded(model, String(prompt.length), field);
  return room;
}

/** Returns an error whose message begins like OpenAI's, because clients match on that text. */
function contextExceeded({ contextLength }: PromptModel, promptTokens: string, field: string): PtpError {
  const message = `This model's maximum context length is ${contextLength} tokens. However, the prompt has ${promptTokens} tokens and leaves no room for a completion. Shorten it.`;
  return new PtpError('out_of_range', message, { field });
}

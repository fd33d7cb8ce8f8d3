import { PtpError } from '@ptp/protocol/errors';
import type { Tokenizer } from './tokenizer.ts';

/** The properties of a model that the encoding of its prompts depends on. */
export interface PromptModel {
  readonly contextLength: number;
  readonly endOfText: number;
  /** The token that precedes every text; null for none, `endOfText` unless given. */
  readonly beginOfText?: number | null;
}

/** The tokens that precede every text: one, or none. */
export function beginning({ beginOfText, endOfText }: PromptModel): number[] {
  const token = beginOfText === undefined ? endOfText : beginOfText;
  return token === null ? [] : [token];
}

/** The prompt, or one token to continue from if it is empty. */
export function orBeginning(ids: readonly number[], model: PromptModel): readonly number[] {
  return ids.length > 0 ? ids : [beginning(model)[0] ?? model.endOfText];
}

/**
 * Token ids of a text, including the token that precedes every text.
 *
 * @throws PtpError `out_of_range`, see {@link checkLength}
 */
export function encodeText(text: string, tokenizer: Tokenizer, model: PromptModel, field: string): number[] {
  checkLength(text, tokenizer, model, field);
  return [...beginning(model), ...tokenizer.encode(text)];
}

/**
 * Rejects a text that cannot fit the context, without the cost of tokenizing it.
 *
 * @throws PtpError `out_of_range` naming `field`
 */
export function checkLength(text: string, tokenizer: Tokenizer, model: PromptModel, field: string): void {
  const fewest = Math.ceil(Buffer.byteLength(text) / tokenizer.longestToken);
  if (fewest >= model.contextLength) throw contextExceeded(model, `at least ${fewest}`, undefined, field);
}

/**
 * Tokens that the context has left after a prompt.
 *
 * @param maxTokens how many the request wants; undefined for whatever is left, at least one
 * @throws PtpError `out_of_range` naming `field` if they do not fit
 */
export function roomAfter(
  prompt: readonly number[],
  maxTokens: number | undefined,
  model: PromptModel,
  field: string,
): number {
  const room = model.contextLength - prompt.length;
  if (room < (maxTokens ?? 1)) throw contextExceeded(model, String(prompt.length), maxTokens, field);
  return room;
}

/** Begins as OpenAI's message does: clients match on that text. */
function contextExceeded(
  { contextLength }: PromptModel,
  promptTokens: string,
  maxTokens: number | undefined,
  field: string,
): PtpError {
  const excess =
    maxTokens === undefined
      ? 'leaves no room for a completion. Shorten it.'
      : `you requested ${maxTokens} more. Shorten the prompt or request fewer tokens.`;
  const message = `This model's maximum context length is ${contextLength} tokens. However, the prompt has ${promptTokens} tokens and ${excess}`;
  return new PtpError('out_of_range', message, { field });
}

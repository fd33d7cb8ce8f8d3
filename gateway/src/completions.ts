import { completionLogprobs, type TokenLogprob } from './logprobs.ts';
import type { Format } from './respond.ts';

/** Tokens generated when a completion request does not say, as in OpenAI's API. */
export const defaultCompletionTokens = 16;

/** https://platform.openai.com/docs/api-reference/completions */
export const completionFormat: Format = {
  idPrefix: 'cmpl-',
  object: 'text_completion',
  chunkObject: 'text_completion',
  first: () => undefined,
  piece: (index, text, tokens) => choice(index, text, null, tokens),
  last: (index, finish) => choice(index, '', finish),
  whole: choice,
};

function choice(index: number, text: string, finish: string | null, tokens?: readonly TokenLogprob[]): object {
  return { index, text, logprobs: completionLogprobs(tokens), finish_reason: finish };
}

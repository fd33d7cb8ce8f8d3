import { beginning, type ModelInfo } from '../decode/types.ts';
import type { Tokenizer } from '../text/tokenizer.ts';
import type { ChoiceRequest } from './choices.ts';
import { completionLogprobs, type TokenLogprob } from './logprobs.ts';
import type { CompletionRequest } from './request.ts';
import type { Format } from './stream.ts';

/** Tokens generated when a completion request does not say, as in OpenAI's API. */
export const defaultCompletionTokens = 16;

/** The same choices, with answers that begin with their prompts. */
export function echoing(
  requests: readonly ChoiceRequest[],
  { prompts, n, logprobs }: CompletionRequest,
  tokenizer: Tokenizer,
  model: ModelInfo,
): ChoiceRequest[] {
  return requests.map((request, i) => {
    const given = prompts[Math.floor(i / n)] ?? '';
    const tokens = typeof given === 'string' ? request.prompt.slice(beginning(model).length) : given;
    const text = typeof given === 'string' ? given : tokenizer.decode(given);
    return { ...request, echo: { text, tokens }, tellPrompt: logprobs !== undefined };
  });
}

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

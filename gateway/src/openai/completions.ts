import { invalidField } from '@ptp/protocol/validation';
import type { FastifyInstance } from 'fastify';
import { z } from 'zod';
import type { ModelInfo } from '../decode/types.ts';
import { inSlices } from '../grammar/slices.ts';
import { beginning } from '../text/encode.ts';
import { healPrompt } from '../text/token-healing.ts';
import type { Tokenizer } from '../text/tokenizer.ts';
import { boolean, object, positive } from '../validation.ts';
import { parseBody, unsupportedInCompletions } from './body.ts';
import type { ChoiceRequest } from './choices.ts';
import { type ChoiceFormat, ChoicesWriter, type Format } from './choices-writer.ts';
import { completionLogprobs, type TokenLogprob } from './logprobs.ts';
import { choiceRequests, encodePrompts } from './prompt.ts';
import { commonRequest, completionAndChatFields, sharedFields, tokenIds, topLogprobs } from './request.ts';
import { type EndpointParts, respond } from './respond.ts';

/** Default of `max_tokens`, as in OpenAI's API. */
const DEFAULT_MAX_TOKENS = 16;

/** Body of POST /v1/completions. */
export const completionBody = object({
  ...sharedFields,
  ...completionAndChatFields,
  best_of: positive,
  echo: boolean.nullish(),
  /** Field of TabbyAPI and transformers. */
  token_healing: boolean.nullish(),
  logprobs: topLogprobs.nullish(),
  /** True to encode names such as `<|im_start|>` in texts as special tokens. Must not be set for untrusted text. */
  special_tokens: boolean.nullish(),
  prompt: z
    .unknown()
    .meta({ description: 'a string, an array of strings, an array of token ids, or an array of arrays of token ids' }),
});

/** Serves POST /v1/completions (https://platform.openai.com/docs/api-reference/completions). */
export function completionRoute(app: FastifyInstance, parts: EndpointParts): void {
  const { tokenizer, generator } = parts;
  const { model } = generator;
  app.post('/v1/completions', async (http, reply) => {
    const body = parseBody(completionBody, http.body, unsupportedInCompletions);
    const request = await inSlices(() => parseCompletion(body, model));
    return respond(parts, http, reply, {
      request,
      sequences: request.n * request.prompts.length,
      newWriter: (run) => new ChoicesWriter(completionFormat, run),
      prepare: async () => {
        const prompts = await encodePrompts(request.prompts, tokenizer, model, request.special);
        const given = choiceRequests(prompts, request, request.defaultMaxTokens, model, 'prompt');
        const choices = request.echo ? withEcho(given, request, tokenizer, model) : given;
        return request.heals ? withHealing(choices, request, parts) : choices;
      },
    });
  });
}

/**
 * Validates a request whose body has the right types, and compiles its constraint.
 *
 * @throws PtpError `invalid_argument`, naming the field, its limit and the value, or `not_found` for another model
 */
function parseCompletion(body: z.infer<typeof completionBody>, model: ModelInfo) {
  // With `echo`, 0 tokens are allowed: evaluations ask for the log-probabilities of the prompt alone.
  const limit = { field: 'max_tokens', value: body.max_tokens };
  const request = commonRequest(body, limit, model, body.echo ? 0 : 1);
  if (body.best_of && body.best_of !== request.n) {
    throw invalidField('best_of', `equal to \`n\` (${request.n})`, body.best_of);
  }
  const defaultMaxTokens = body.max_tokens === -1 ? model.contextLength : DEFAULT_MAX_TOKENS;
  const prompts = parsePrompts(body.prompt, model.vocabulary);
  const { echo, logprobs, special_tokens: special, token_healing: heals } = body;
  const flags = { echo: echo ?? false, special: special ?? false, heals: heals ?? false };
  return { ...request, ...flags, logprobs: logprobs ?? undefined, defaultMaxTokens, prompts };
}

/**
 * Returns at least one prompt, because an absent prompt counts as an empty one, as in OpenAI's API. Validates without a
 * schema, because zod would be slow on an array of a million token ids.
 */
function parsePrompts(given: unknown, vocabulary: number): (string | number[])[] {
  if (given === undefined || given === null || (Array.isArray(given) && given.length === 0)) return [''];
  const isSingle = !Array.isArray(given) || typeof given[0] === 'number';
  const prompts: unknown[] = isSingle ? [given] : given;
  return prompts.map((prompt, index) => {
    const field = isSingle ? 'prompt' : `prompt[${index}]`;
    if (Array.isArray(prompt)) return tokenIds(field, prompt, vocabulary);
    if (typeof prompt !== 'string') throw invalidField(field, 'a string or an array of token ids', prompt);
    if (!prompt.isWellFormed()) throw invalidField(field, 'free of lone surrogates', prompt);
    return prompt;
  });
}

/** Applies token healing to text prompts. Prompts of token ids and prompts without an answer stay unchanged. */
function withHealing(
  choices: readonly ChoiceRequest[],
  { prompts, n }: ReturnType<typeof parseCompletion>,
  { tokenizer, grammars }: EndpointParts,
): ChoiceRequest[] {
  return choices.map((choice, i) => {
    const { prompt, echo } = choice;
    if (typeof prompts[Math.floor(i / n)] !== 'string' || echo?.isAlone) return choice;
    const healed = healPrompt(prompt, tokenizer, (bytes) => grammars.isExtended(bytes));
    if (!healed) return choice;
    // The repeated text is the whole prompt, but only the tokens that the model reads have log-probabilities.
    const kept = healed.prompt.length - prompt.length;
    return { ...choice, ...healed, ...(echo && { echo: { ...echo, tokens: echo.tokens.slice(0, kept) } }) };
  });
}

/** Adds to each choice the prompt that its answer repeats first. */
function withEcho(
  choices: readonly ChoiceRequest[],
  { prompts, n, logprobs, special }: ReturnType<typeof parseCompletion>,
  tokenizer: Tokenizer,
  model: ModelInfo,
): ChoiceRequest[] {
  return choices.map((choice, i) => {
    const given = prompts[Math.floor(i / n)] ?? '';
    const tokens = typeof given === 'string' ? choice.prompt.slice(beginning(model).length) : given;
    const text = typeof given !== 'string' ? tokenizer.decode(tokens) : special ? tokenizer.decodeWhole(tokens) : given;
    const isAlone = choice.maxTokens === 0;
    return {
      ...choice,
      maxTokens: choice.maxTokens || 1,
      echo: { text, tokens, isAlone },
      promptLogprobs: logprobs !== undefined,
    };
  });
}

class CompletionChoice implements ChoiceFormat {
  #text = '';
  #finish: string | null = null;

  piece(text: string, tokens?: readonly TokenLogprob[]): object {
    this.#text += text;
    return { text, logprobs: completionLogprobs(tokens), finish_reason: null };
  }

  last(finish: string): object {
    this.#finish = finish;
    return { text: '', logprobs: null, finish_reason: finish };
  }

  whole(tokens?: readonly TokenLogprob[]): object {
    return { text: this.#text, logprobs: completionLogprobs(tokens), finish_reason: this.#finish };
  }
}

const completionFormat: Format = {
  idPrefix: 'cmpl-',
  object: 'text_completion',
  chunkObject: 'text_completion',
  newChoice: () => new CompletionChoice(),
};

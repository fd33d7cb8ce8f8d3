import { type SamplingParams, samplingParams } from '@ptp/protocol/sampling-params';
import { adjustParams } from '@ptp/protocol/token-adjustments';
import { z } from 'zod';
import type { GenerationRequest, ModelInfo } from '../decode/types.ts';
import { boolean, integer, number } from '../validation.ts';

/** Most tokens that may end a text, beside the model's own. */
export const MOST_STOP_TOKENS = 64;
/** Most alternatives that are told for each token; as many as OpenAI's chat API tells. */
export const MOST_TOPS = 20;

const id = integer(0, Number.MAX_SAFE_INTEGER, 'a token id');
const stopTokensError = `an array of up to ${MOST_STOP_TOKENS} token ids`;

/** How tokens are chosen: OpenAI's fields, and those that vLLM has beside them under the names that they have there. */
export const samplingFields = {
  temperature: number.nullish(),
  top_p: number.nullish(),
  top_k: integer(-1, Number.MAX_SAFE_INTEGER, 'an integer >= 0, or -1 for off').nullish(),
  min_p: number.nullish(),
  logit_bias: z.record(z.string(), number, { error: 'an object of numbers by token id' }).nullish(),
  presence_penalty: number.nullish(),
  frequency_penalty: number.nullish(),
  repetition_penalty: number.nullish(),
  stop_token_ids: z.array(id, { error: stopTokensError }).max(MOST_STOP_TOKENS, { error: stopTokensError }).nullish(),
  ignore_eos: boolean.nullish(),
  min_tokens: integer(0, Number.MAX_SAFE_INTEGER, 'an integer >= 0').nullish(),
};

export type SamplingFields = z.infer<z.ZodObject<typeof samplingFields>>;

/** What these fields mean for a sequence. */
export type Sampling = Pick<GenerationRequest, 'adjustments' | 'stopTokens' | 'ignoreEndOfText'> & {
  readonly sampling: SamplingParams;
};

/** @throws PtpError `invalid_argument` naming field, limit and given value */
export function samplingOf(given: SamplingFields, model: ModelInfo): Sampling {
  const { vocabulary } = model;
  const topK = given.top_k === -1 ? 0 : given.top_k;
  const shaping = { temperature: given.temperature, topK, topP: given.top_p, minP: given.min_p };
  const stopTokens = given.stop_token_ids ?? [];
  const ignoreEndOfText = given.ignore_eos ?? false;
  const ends = ignoreEndOfText ? [] : [model.endOfText, ...(model.stopTokens ?? [])];
  const adjustments = adjustParams(
    {
      logitBias: new Map(Object.entries(given.logit_bias ?? {}).map(([token, bias]) => [Number(token), bias])),
      presencePenalty: given.presence_penalty,
      frequencyPenalty: given.frequency_penalty,
      repetitionPenalty: given.repetition_penalty,
      heldBack: [...ends, ...stopTokens],
      heldBackUntil: given.min_tokens,
    },
    vocabulary,
  );
  return {
    sampling: samplingParams(shaping, vocabulary),
    ...(adjustments && { adjustments }),
    ...(stopTokens.length > 0 && { stopTokens }),
    ...(ignoreEndOfText && { ignoreEndOfText }),
  };
}

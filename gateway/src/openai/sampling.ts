import { samplingParams } from '@ptp/protocol/sampling-params';
import { adjustParams } from '@ptp/protocol/token-adjustments';
import { invalidField } from '@ptp/protocol/validation';
import { z } from 'zod';
import type { ModelInfo } from '../decode/types.ts';
import { boolean, integer, number } from '../validation.ts';

/** Maximum number of `stop_token_ids` in a request. */
export const STOP_TOKEN_LIMIT = 64;

const stopTokensError = `an array of up to ${STOP_TOKEN_LIMIT} token ids`;

/** Fields that control sampling: OpenAI's and vLLM's extensions. */
export const samplingFields = {
  temperature: number.nullish(),
  top_p: number.nullish(),
  top_k: integer(-1, Number.MAX_SAFE_INTEGER, 'an integer >= 0, or -1 to disable it').nullish(),
  min_p: number.nullish(),
  logit_bias: z.record(z.string(), number, { error: 'an object of numbers by token id' }).nullish(),
  presence_penalty: number.nullish(),
  frequency_penalty: number.nullish(),
  repetition_penalty: number.nullish(),
  stop_token_ids: z
    .array(integer(0, Number.MAX_SAFE_INTEGER, 'a token id'), { error: stopTokensError })
    .max(STOP_TOKEN_LIMIT, { error: stopTokensError })
    .nullish(),
  ignore_eos: boolean.nullish(),
  min_tokens: integer(0, Number.MAX_SAFE_INTEGER, 'an integer >= 0').nullish(),
};

/**
 * Converts the sampling fields to the part of a generation request that they determine.
 *
 * @throws PtpError `invalid_argument`, naming field, limit and value
 */
export function samplingOf(fields: z.infer<z.ZodObject<typeof samplingFields>>, model: ModelInfo) {
  const { vocabulary } = model;
  const topK = fields.top_k === -1 ? 0 : fields.top_k;
  const params = { temperature: fields.temperature, topK, topP: fields.top_p || 1, minP: fields.min_p };
  const sampling = samplingParams(params, vocabulary);
  const stopTokens = fields.stop_token_ids ?? [];
  const ignoreEndOfText = fields.ignore_eos ?? false;
  const ends = ignoreEndOfText ? [] : [model.endOfText, ...(model.stopTokens ?? [])];
  const adjustments = adjustParams(
    {
      logitBias: new Map(
        Object.entries(fields.logit_bias ?? {}).map(([key, bias]) => [tokenOf(key, vocabulary), bias]),
      ),
      presencePenalty: fields.presence_penalty,
      frequencyPenalty: fields.frequency_penalty,
      repetitionPenalty: fields.repetition_penalty,
      heldBack: [...ends, ...stopTokens],
      heldBackUntil: fields.min_tokens,
    },
    vocabulary,
  );
  return {
    // top_p 0 keeps only the most probable token, like temperature 0.
    sampling: fields.top_p === 0 ? samplingParams({ temperature: 0 }, vocabulary) : sampling,
    ...(adjustments && { adjustments }),
    ...(stopTokens.length > 0 && { stopTokens }),
    ...(ignoreEndOfText && { ignoreEndOfText }),
  };
}

/** Parses a key of `logit_bias`. `Number` alone would accept "", "1e2" and " 5". */
function tokenOf(key: string, vocabulary: number): number {
  if (/^(0|[1-9]\d*)$/.test(key)) return Number(key);
  throw invalidField('logit_bias', `keyed by token ids in [0, ${vocabulary - 1}]`, key);
}

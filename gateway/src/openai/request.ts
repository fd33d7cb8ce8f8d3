import { randomBytes } from 'node:crypto';
import { PtpError } from '@ptp/protocol/errors';
import { isLongNumber } from '@ptp/protocol/long-number';
import { invalidField } from '@ptp/protocol/validation';
import { z } from 'zod';
import type { DraftOverrides, ModelInfo } from '../decode/types.ts';
import type { OutputConstraint } from '../grammar/types.ts';
import { DRAFT_MODES, LONGEST_DRAFT } from '../settings.ts';
import { boolean, integer, object, text } from '../validation.ts';
import { content, joinText } from './messages.ts';
import { constraintOf, guidedFields, responseFormat, structuredOutputs } from './output-format.ts';
import { samplingFields, samplingOf } from './sampling.ts';

/** Maximum number of alternatives per token, as in OpenAI's chat API. */
export const TOP_LOGPROBS_LIMIT = 20;
export const topLogprobs = integer(0, TOP_LOGPROBS_LIMIT, `an integer in [0, ${TOP_LOGPROBS_LIMIT}]`);

/** Maximum number of choices per prompt, as in OpenAI's API. Admission may allow fewer. */
const CHOICE_LIMIT = 128;
const STOP_LIMIT = 16;
const stopError = `a string or an array of up to ${STOP_LIMIT} strings`;
/** Schema of the strings that end the answer. */
export const stopStrings = z
  .array(text.min(1, 'a non-empty string'), { error: stopError })
  .max(STOP_LIMIT, { error: stopError });

export const draftMode = z.enum(DRAFT_MODES, { error: `one of ${DRAFT_MODES.join(', ')}` });

/** Schema of a seed. Becomes a bigint in [0, 2^64); a negative seed wraps around. */
const seed = z.unknown().transform((value, context) => {
  const integer = integerOf(value);
  if (integer !== undefined && BigInt.asIntN(64, integer) === integer) return BigInt.asUintN(64, integer);
  context.addIssue({ code: 'custom', message: 'an integer in [-2^63, 2^63)' });
  return z.NEVER;
});

function integerOf(value: unknown): bigint | undefined {
  if (isLongNumber(value)) return /^-?\d{1,19}$/.test(value.rawJSON) ? BigInt(value.rawJSON) : undefined;
  return Number.isInteger(value) ? BigInt(value as number) : undefined;
}

const tokenLimitError = 'an integer >= 1, or -1 for no limit';
/** Schema of the maximum number of tokens to generate. -1 means no limit, as in other servers. */
export const tokenLimit = integer(-1, Number.MAX_SAFE_INTEGER, tokenLimitError).nullish();

/** Maximum number of tokens to generate, and the field that contains it. */
export interface TokenLimit {
  readonly field: string;
  readonly value: number | null | undefined;
}

/** Fields that all three text endpoints share. */
export const sharedFields = {
  model: z.string({ error: 'a string' }).nullish(),
  ...samplingFields,
  seed: seed.nullish(),
  stream: boolean.nullish(),
  prediction: object({ type: z.literal('content', { error: '"content"' }), content }).nullish(),
  ptp: object({
    draft: boolean.nullish(),
    draft_length: integer(1, LONGEST_DRAFT, `an integer in [1, ${LONGEST_DRAFT}]`).nullish(),
    prompt_lookup: boolean.nullish(),
    trace: boolean.nullish(),
    draft_mode: draftMode.nullish(),
  }).nullish(),
};

/** Fields that completions and chat share. In the responses API, these fields are missing or have different names. */
export const completionAndChatFields = {
  max_tokens: tokenLimit,
  stop: z.preprocess((value) => (typeof value === 'string' ? [value] : value), stopStrings).nullish(),
  n: integer(1, CHOICE_LIMIT, `an integer in [1, ${CHOICE_LIMIT}]`).nullish(),
  response_format: responseFormat.nullish(),
  structured_outputs: structuredOutputs.nullish(),
  ...guidedFields,
  stream_options: object({ include_usage: boolean.nullish() }).nullish(),
};

type CommonBody = z.infer<z.ZodObject<typeof sharedFields>> &
  Partial<z.infer<z.ZodObject<typeof completionAndChatFields>>>;

/** Validated fields that all requests share, with defaults filled in. */
export type CommonRequest = ReturnType<typeof commonRequest> & {
  /** Number of alternatives per token, from 0 to 20. Undefined if the client wants no log-probabilities. */
  readonly logprobs: number | undefined;
};

/**
 * Validates conditions that a schema alone cannot express, and fills in defaults.
 *
 * @param body body that has passed its schema
 * @param limit token limit, whose field has a different name in each endpoint
 * @param minimum minimum token limit
 * @throws PtpError `invalid_argument`, naming field, limit and value, or `not_found` for another model
 */
export function commonRequest(body: CommonBody, limit: TokenLimit, model: ModelInfo, minimum = 1) {
  checkModel(body.model ?? 'default', model);
  const stream = body.stream ?? false;
  if (body.stream_options && !stream) {
    throw invalidField('stream_options', 'absent unless `stream` is true', body.stream_options);
  }
  const maxTokens = limit.value === -1 ? undefined : (limit.value ?? undefined);
  if (maxTokens !== undefined && maxTokens < minimum) {
    throw invalidField(limit.field, tokenLimitError, maxTokens);
  }
  if (maxTokens !== undefined && (body.min_tokens ?? 0) > maxTokens) {
    throw invalidField('min_tokens', `at most \`${limit.field}\` (${maxTokens})`, body.min_tokens);
  }
  const constraint = constraintOf(body);
  checkEnding(body, constraint);
  return {
    /** Constraint on the text. Undefined if any text is allowed. */
    constraint,
    /** Number of choices per prompt. */
    n: body.n ?? 1,
    seed: body.seed ?? randomSeed(),
    /** Maximum number of tokens to generate. The endpoint has a default. */
    maxTokens: { field: limit.field, value: maxTokens },
    stream,
    includeUsage: body.stream_options?.include_usage ?? false,
    /** Text that the client expects as the answer. Empty if the client sent none. */
    prediction: joinText(body.prediction?.content ?? ''),
    /** Fields that each choice of the request has in common. */
    choice: {
      ...samplingOf(body, model),
      stop: body.stop ?? [],
      minTokens: body.min_tokens ?? 0,
      drafting: body.ptp?.draft ?? true,
      draftLimits: draftLimitsOf(body.ptp ?? {}),
      trace: body.ptp?.trace ?? false,
    },
  };
}

/**
 * Checks that the end of a constrained text is not suppressed, because the grammar may allow nothing else.
 *
 * @throws PtpError `invalid_argument`, naming field, limit and value
 */
export function checkEnding(
  { ignore_eos: ignoresEnd, min_tokens: minTokens }: Pick<CommonBody, 'ignore_eos' | 'min_tokens'>,
  constraint: OutputConstraint | undefined,
): void {
  const absent = 'absent with constrained output (a response format, `structured_outputs` or `tools`)';
  if (constraint && ignoresEnd) throw invalidField('ignore_eos', absent, true);
  if (constraint && minTokens) throw invalidField('min_tokens', absent, minTokens);
}

/** Returns a random seed, for requests without one. */
export function randomSeed(): bigint {
  return randomBytes(8).readBigUInt64LE();
}

/**
 * Checks the name of the model.
 *
 * @throws PtpError `not_found` unless `name` is the id of the served model or the alias `default`
 */
export function checkModel(name: string, { modelId }: ModelInfo): void {
  if (name === modelId || name === 'default') return;
  const message = `The model \`${name.slice(0, 80)}\` does not exist; this server has \`${modelId}\`, alias \`default\``;
  throw new PtpError('not_found', message, { field: 'model' });
}

/** Returns `ids` as token ids. @throws PtpError `invalid_argument` for the first element that is not a token id */
export function tokenIds(field: string, ids: readonly unknown[], vocabulary: number): number[] {
  const isToken = (id: unknown) => Number.isInteger(id) && (id as number) >= 0 && (id as number) < vocabulary;
  const wrong = ids.findIndex((id) => !isToken(id));
  if (wrong >= 0) throw invalidField(`${field}[${wrong}]`, `a token id in [0, ${vocabulary - 1}]`, ids[wrong]);
  return ids as number[];
}

function draftLimitsOf(ptp: NonNullable<CommonBody['ptp']>): DraftOverrides {
  const { draft_length: length, draft_mode: mode, prompt_lookup: lookup } = ptp;
  return { ...(length && { length }), ...(mode && { mode }), ...(lookup != null && { lookup }) };
}

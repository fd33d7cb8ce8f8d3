import { randomBytes } from 'node:crypto';
import { PtpError } from '@ptp/protocol/errors';
import { z } from 'zod';
import type { DraftOverrides, ModelInfo } from '../decode/types.ts';
import type { Form } from '../grammar/grammars.ts';
import { DRAFT_MODES, LONGEST_DRAFT } from '../settings.ts';
import { boolean, check, integer, object, positive, refuse, text } from '../validation.ts';
import { type ChatMessage, content, conversation, messageList, textOf } from './messages.ts';
import { formOf, responseFormat, structuredOutputs } from './output-format.ts';
import { MOST_TOPS, type Sampling, samplingFields, samplingOf } from './sampling-fields.ts';
import { type ToolUse, toolChoice, toolForm, tools, toolUseOf } from './tools.ts';
import { inChat, inCompletions, refuseUnsupported, type Unsupported } from './unsupported.ts';

/** What completions and chat have in common, checked and with defaults. */
export interface CommonRequest {
  /** Choices per prompt, 1 .. 8. Choice i draws from seed + i mod 2^64. */
  readonly n: number;
  readonly choosing: Sampling;
  /** What the answer has to be; undefined for any text. */
  readonly form: Form | undefined;
  /** Alternatives to tell for each token; undefined when the client wants no log-probabilities at all. */
  readonly logprobs: number | undefined;
  /** 0 .. 2^64 - 1; a negative seed counts from 2^64 down. Random when the client gave none. */
  readonly seed: bigint;
  /** Undefined when the client gave none. */
  readonly maxTokens: number | undefined;
  readonly stop: readonly string[];
  readonly stream: boolean;
  readonly includeUsage: boolean;
  readonly drafting: boolean;
  readonly draftLimits: DraftOverrides;
  /** What the answer may well be; '' for nothing. */
  readonly prediction: string;
  /** Whether the answer tells what its steps did: a stream in each chunk, a choice of completions and chat in a list. */
  readonly trace: boolean;
}

export interface CompletionRequest extends CommonRequest {
  /** Whether answers begin with the prompt. */
  readonly echo: boolean;
  /** At least one text or list of token ids; either may be empty. */
  readonly prompts: readonly (string | readonly number[])[];
}

export interface ChatRequest extends CommonRequest {
  readonly messages: readonly ChatMessage[];
  /** What may be called; undefined for no tools. */
  readonly toolUse: ToolUse | undefined;
}

const isSeed = (value: unknown): value is number | bigint =>
  (typeof value === 'bigint' || Number.isInteger(value)) &&
  BigInt.asIntN(64, BigInt(value as number)) === BigInt(value as number);

const stopError = 'a string or an array of up to 4';
/** Fields of all requests for text. */
export const common = {
  model: z.string({ error: 'a string' }).nullish(),
  ...samplingFields,
  seed: z.custom<number | bigint>(isSeed, 'an integer in [-2^63, 2^63)').nullish(),
  max_tokens: positive,
  stop: z
    .preprocess(
      (value) => (typeof value === 'string' ? [value] : value),
      z.array(text.min(1, 'a non-empty string'), { error: stopError }).max(4, { error: stopError }),
    )
    .nullish(),
  n: integer(1, 8, 'an integer in [1, 8]').nullish(),
  response_format: responseFormat.nested.nullish(),
  structured_outputs: structuredOutputs.nullish(),
  stream: boolean.nullish(),
  stream_options: object({ include_usage: boolean.nullish() }).nullish(),
  prediction: object({
    type: z.literal('content', { error: '"content"' }),
    content,
  }).nullish(),
  ptp: object({
    draft: boolean.nullish(),
    draft_length: integer(1, LONGEST_DRAFT, `an integer in [1, ${LONGEST_DRAFT}]`).nullish(),
    prompt_lookup: boolean.nullish(),
    trace: boolean.nullish(),
    draft_mode: z.enum(DRAFT_MODES, { error: DRAFT_MODES.join(', ') }).nullish(),
  }).nullish(),
};

export const tops = integer(0, MOST_TOPS, `an integer in [0, ${MOST_TOPS}]`);
/** POST /v1/completions. */
export const completionBody = object({
  ...common,
  best_of: positive,
  echo: boolean.nullish(),
  logprobs: tops.nullish(),
  prompt: z.unknown().meta({ description: 'a text, texts, token ids, or lists of token ids' }),
});

/** POST /v1/chat/completions. */
export const chatBody = object({
  ...common,
  max_completion_tokens: positive,
  logprobs: boolean.nullish(),
  top_logprobs: tops.nullish(),
  messages: messageList,
  tools: tools.nullish(),
  tool_choice: toolChoice.nullish(),
  parallel_tool_calls: boolean.nullish(),
});

/**
 * The body of POST /v1/completions.
 *
 * @throws PtpError `invalid_argument` naming field, limit and given value; `not_found` for another model
 */
export function completionRequest(body: unknown, model: ModelInfo): CompletionRequest {
  const given = check(completionBody, body);
  const request = commonRequest(given, body as object, inCompletions, given.max_tokens, model);
  if (given.best_of && given.best_of !== request.n) refuse('best_of', `equal to \`n\` (${request.n})`, given.best_of);
  const logprobs = given.logprobs ?? undefined;
  return { ...request, logprobs, echo: given.echo ?? false, prompts: promptList(given.prompt, model.vocabulary) };
}

/**
 * The body of POST /v1/chat/completions.
 *
 * @throws PtpError `invalid_argument` naming field, limit and given value; `not_found` for another model
 */
export function chatRequest(body: unknown, model: ModelInfo): ChatRequest {
  const given = check(chatBody, body);
  const messages = conversation(given.messages);
  const request = commonRequest(given, body as object, inChat, given.max_completion_tokens ?? given.max_tokens, model);
  const tops = given.top_logprobs ?? 0;
  if (tops > 0 && !given.logprobs) refuse('top_logprobs', 'absent or 0 unless `logprobs` is true', tops);
  const toolUse = toolUseOf(given.tools, given.tool_choice, given.parallel_tool_calls ?? true);
  const called = toolUse && toolForm(toolUse, (i) => `tools[${i}].function.parameters`);
  const form = oneForm(request, called);
  return { ...request, form, logprobs: given.logprobs ? tops : undefined, messages, toolUse };
}

/** @throws PtpError `invalid_argument` where an answer would have to be both */
export function oneForm({ form }: Pick<CommonRequest, 'form'>, called: Form | undefined): Form | undefined {
  if (form && called) refuse('tools', 'absent beside a form of the answer, or with `tool_choice` none', 'both');
  return called ?? form;
}

/** @throws PtpError `not_found` unless `name` is the served model's or the alias `default` */
export function checkModel(name: string, model: ModelInfo): void {
  if (name === model.modelId || name === 'default') return;
  const message = `The model \`${name.slice(0, 80)}\` does not exist; this server has \`${model.modelId}\`, alias \`default\``;
  throw new PtpError('not_found', message, { field: 'model' });
}

type CommonBody = Omit<z.infer<z.ZodObject<typeof common>>, Optional> &
  Partial<Pick<z.infer<z.ZodObject<typeof common>>, Optional>>;
/** What the responses API spells in another way. */
type Optional = 'response_format' | 'structured_outputs';

/** @throws PtpError naming field, limit and given value */
export function commonRequest(
  given: CommonBody,
  body: object,
  unsupported: Unsupported,
  maxTokens: number | null | undefined,
  model: ModelInfo,
) {
  checkModel(given.model ?? 'default', model);
  refuseUnsupported(body as Record<string, unknown>, unsupported);
  const stream = given.stream ?? false;
  if (given.stream_options && !stream) refuse('stream_options', 'absent unless `stream` is true', given.stream_options);
  if (maxTokens && (given.min_tokens ?? 0) > maxTokens)
    refuse('min_tokens', `at most \`max_tokens\` (${maxTokens})`, given.min_tokens);
  const form = formOf(given.response_format, given.structured_outputs);
  if (form && given.ignore_eos) refuse('ignore_eos', 'absent where the answer has a form', true);
  if (form && given.min_tokens) refuse('min_tokens', 'absent where the answer has a form', given.min_tokens);
  return {
    form,
    n: given.n ?? 1,
    choosing: samplingOf(given, model),
    seed: given.seed == null ? randomBytes(8).readBigUInt64LE() : BigInt.asUintN(64, BigInt(given.seed)),
    maxTokens: maxTokens ?? undefined,
    stop: given.stop ?? [],
    stream,
    includeUsage: given.stream_options?.include_usage ?? false,
    drafting: given.ptp?.draft ?? true,
    draftLimits: draftWishes(given.ptp ?? {}),
    prediction: textOf(given.prediction?.content ?? ''),
    trace: given.ptp?.trace ?? false,
  };
}

/** By hand, as a list of token ids may be a million long. An empty prompt is one prompt, as in OpenAI's API. */
function promptList(prompt: unknown, vocabulary: number): (string | number[])[] {
  if (prompt === undefined || prompt === null || (Array.isArray(prompt) && prompt.length === 0)) return [''];
  const isSingle = !Array.isArray(prompt) || typeof prompt[0] === 'number';
  const prompts: unknown[] = isSingle ? [prompt] : prompt;
  return prompts.map((item, index) => {
    const field = isSingle ? 'prompt' : `prompt[${index}]`;
    if (typeof item === 'string') return item.isWellFormed() ? item : refuse(field, 'free of lone surrogates', item);
    if (!Array.isArray(item)) return refuse(field, 'a string or an array of token ids', item);
    return tokenIds(field, item, vocabulary);
  });
}

/** @throws PtpError `invalid_argument` at the first that is none */
export function tokenIds(field: string, ids: readonly unknown[], vocabulary: number): number[] {
  const isToken = (id: unknown) => Number.isInteger(id) && (id as number) >= 0 && (id as number) < vocabulary;
  const wrong = ids.findIndex((id) => !isToken(id));
  if (wrong >= 0) refuse(`${field}[${wrong}]`, `a token id in [0, ${vocabulary - 1}]`, ids[wrong]);
  return ids as number[];
}

function draftWishes(ptp: NonNullable<CommonBody['ptp']>): DraftOverrides {
  const { draft_length: length, draft_mode: mode, prompt_lookup: lookup } = ptp;
  return { ...(length && { length }), ...(mode && { mode }), ...(lookup != null && { lookup }) };
}

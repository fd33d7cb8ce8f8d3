import { fieldError, parseFields } from '@ptp/protocol/validation';
import type { z } from 'zod';

/** Returns true if a value of the field would change the answer. */
type Test = (value: unknown) => boolean;

/**
 * Unsupported fields, including fields of other endpoints. A value that would change the answer is rejected, because
 * ignoring it would silently give a different answer.
 */
export type Unsupported = Readonly<Record<string, Test>>;

const always: Test = () => true;
const isFilled: Test = (value) => (typeof value === 'object' ? Object.keys(value ?? {}).length > 0 : value !== '');
const isNot =
  (...neutral: unknown[]): Test =>
  (value) =>
    !neutral.includes(value);

const isFormat: Test = (value) => (value as { type?: unknown }).type !== 'text';

/** Extensions of other servers. */
const extensions: Unsupported = {
  guided_grammar: isFilled,
  grammar: isFilled,
  allowed_token_ids: always,
  bad_words: isFilled,
};

export const unsupportedInCompletions: Unsupported = {
  ...extensions,
  suffix: isFilled,
  max_completion_tokens: always,
  max_output_tokens: always,
};

export const unsupportedInChat: Unsupported = {
  ...extensions,
  functions: isFilled,
  function_call: isNot('none', 'auto'),
  modalities: (value) => !(Array.isArray(value) && value.every((modality) => modality === 'text')),
  audio: always,
  web_search_options: always,
  max_output_tokens: always,
  token_healing: isNot(false),
};

export const unsupportedInResponses: Unsupported = {
  ...extensions,
  guided_json: isFilled,
  guided_regex: isFilled,
  guided_choice: isFilled,
  prompt: always,
  previous_response_id: isFilled,
  conversation: always,
  background: isNot(false),
  reasoning: (value) =>
    !(typeof value === 'object' && [null, undefined, 'none'].includes((value as { effort?: string | null }).effort)),
  truncation: isNot('disabled', 'auto'),
  max_tool_calls: always,
  token_healing: isNot(false),
  max_tokens: always,
  max_completion_tokens: always,
  stop: isFilled,
  n: isNot(1),
  response_format: isFormat,
  structured_outputs: isFilled,
};

/**
 * Validates the body of a request.
 *
 * @throws PtpError `invalid_argument`, naming field, limit and value, or the first unsupported field with an effect
 */
export function parseBody<T extends z.ZodType>(schema: T, body: unknown, unsupported: Unsupported): z.infer<T> {
  const parsed = parseFields(schema, body);
  for (const [field, hasEffect] of Object.entries(unsupported)) {
    const value = (body as Readonly<Record<string, unknown>>)[field];
    if (value === undefined || value === null || !hasEffect(value)) continue;
    throw fieldError(field, 'is not supported');
  }
  return parsed;
}

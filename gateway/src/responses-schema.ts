import { z } from 'zod';
import type { PairFacts } from './generation.ts';
import { type ChatMessage, type CommonRequest, common, commonRequest, tops } from './schema.ts';
import { boolean, check, object, positive, refuse, text } from './schema-parts.ts';
import { inResponses } from './unsupported.ts';

/** The body of POST /v1/responses. */
export interface ResponsesRequest extends CommonRequest {
  /** Instructions first, as a system message. */
  readonly messages: readonly ChatMessage[];
  readonly instructions: string | null;
  readonly metadata: Readonly<Record<string, string>>;
}

const LOGPROBS = 'message.output_text.logprobs';

const part = object({
  type: z.enum(['input_text', 'output_text'], { error: 'input_text or output_text' }),
  text,
});
const item = object({
  type: z.literal('message', { error: '"message"' }).nullish(),
  role: z.enum(['system', 'developer', 'user', 'assistant'], { error: 'system, developer, user or assistant' }),
  content: z.union([text, z.array(part, { error: 'a string or an array of text parts' })]),
});
const { n: _, stop: __, max_tokens: ___, stream_options: ____, ...shared } = common;
/** POST /v1/responses. */
export const responsesBody = object({
  ...shared,
  input: z.union([text, z.array(item, { error: 'a string or an array of messages' }).min(1, 'not empty')], {
    error: 'a string or an array of messages',
  }),
  instructions: text.nullish(),
  max_output_tokens: positive,
  include: z.array(z.literal(LOGPROBS, { error: LOGPROBS }), { error: 'an array' }).nullish(),
  top_logprobs: tops.nullish(),
  metadata: z.record(z.string(), z.string({ error: 'a string' }), { error: 'an object of strings' }).nullish(),
  store: boolean.nullish(),
});

/**
 * @throws PtpError `invalid_argument` naming field, limit and given value; `not_found` for another model
 */
export function responsesRequest(given: unknown, facts: PairFacts): ResponsesRequest {
  const asked = check(responsesBody, given);
  const request = commonRequest(asked, given as object, inResponses, asked.max_output_tokens, facts);
  const wanted = asked.include?.includes(LOGPROBS) ?? false;
  const count = asked.top_logprobs ?? 0;
  if (count > 0 && !wanted) refuse('top_logprobs', `absent or 0 unless \`include\` has ${LOGPROBS}`, count);
  const { input, instructions = null } = asked;
  const items = typeof input === 'string' ? [{ role: 'user' as const, content: input }] : input;
  const messages = items.map(
    ({ role, content }): ChatMessage => ({
      role: role === 'developer' ? 'system' : role,
      content: typeof content === 'string' ? content : content.map((each) => each.text).join('\n'),
    }),
  );
  return {
    ...request,
    logprobs: wanted ? count : undefined,
    messages: instructions === null ? messages : [{ role: 'system', content: instructions }, ...messages],
    instructions,
    metadata: asked.metadata ?? {},
  };
}

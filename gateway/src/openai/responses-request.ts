import { z } from 'zod';
import type { ModelInfo } from '../decode/types.ts';
import type { Form } from '../grammar/grammars.ts';
import { boolean, check, object, positive, refuse, text } from '../validation.ts';
import { type ChatMessage, parsedArguments, textOf } from './messages.ts';
import { formatForm, responseFormat } from './output-format.ts';
import { type CommonRequest, common, commonRequest, oneForm, tops } from './request.ts';
import { MOST_TOOLS, type ToolUse, toolForm, toolFunction, toolUseOf } from './tools.ts';
import { inResponses } from './unsupported.ts';

/** The body of POST /v1/responses. */
export interface ResponsesRequest extends CommonRequest {
  /** Instructions first, as a system message. */
  readonly messages: readonly ChatMessage[];
  readonly instructions: string | null;
  readonly metadata: Readonly<Record<string, string>>;
  readonly toolUse: ToolUse | undefined;
  /** What the response repeats of the request. */
  readonly echoed: object;
}

const LOGPROBS = 'message.output_text.logprobs';

const part = object({
  type: z.enum(['input_text', 'output_text'], { error: 'input_text or output_text' }),
  text,
});
const message = object({
  type: z.literal('message', { error: 'message, function_call or function_call_output' }).nullish(),
  role: z.enum(['system', 'developer', 'user', 'assistant'], { error: 'system, developer, user or assistant' }),
  content: z.union([text, z.array(part, { error: 'a string or an array of text parts' })]),
});
const call = object({ type: z.literal('function_call'), call_id: text, name: text, arguments: text });
const output = object({ type: z.literal('function_call_output'), call_id: text, output: text });
const itemsError = 'a string or an array of messages, calls and their outputs';

const toolsError = `an array of up to ${MOST_TOOLS} functions`;
const choiceError = 'none, auto, required or a function';
const isFunction = z.literal('function', { error: '"function"' });

const {
  n: _,
  stop: __,
  max_tokens: ___,
  stream_options: ____,
  response_format: _____,
  structured_outputs: ______,
  ...shared
} = common;
/** POST /v1/responses. */
export const responsesBody = object({
  ...shared,
  input: z.union([text, z.array(z.union([call, output, message]), { error: itemsError }).min(1, 'not empty')], {
    error: itemsError,
  }),
  instructions: text.nullish(),
  max_output_tokens: positive,
  include: z.array(z.literal(LOGPROBS, { error: LOGPROBS }), { error: 'an array' }).nullish(),
  top_logprobs: tops.nullish(),
  metadata: z.record(z.string(), z.string({ error: 'a string' }), { error: 'an object of strings' }).nullish(),
  store: boolean.nullish(),
  text: object({ format: responseFormat.flat.nullish() }).nullish(),
  tools: z
    .array(object({ type: isFunction, strict: boolean.nullish(), ...toolFunction }), { error: toolsError })
    .max(MOST_TOOLS, { error: toolsError })
    .nullish(),
  tool_choice: z
    .union(
      [
        z.enum(['none', 'auto', 'required'], { error: choiceError }),
        object({ type: isFunction, name: toolFunction.name }),
      ],
      { error: choiceError },
    )
    .nullish(),
  parallel_tool_calls: boolean.nullish(),
});

/**
 * @throws PtpError `invalid_argument` naming field, limit and given value; `not_found` for another model
 */
export function responsesRequest(given: unknown, model: ModelInfo): ResponsesRequest {
  const asked = check(responsesBody, given);
  const request = commonRequest(asked, given as object, inResponses, asked.max_output_tokens, model);
  const wanted = asked.include?.includes(LOGPROBS) ?? false;
  const count = asked.top_logprobs ?? 0;
  if (count > 0 && !wanted) refuse('top_logprobs', `absent or 0 unless \`include\` has ${LOGPROBS}`, count);
  const { input, instructions = null, tool_choice: choice } = asked;
  const parallel = asked.parallel_tool_calls ?? true;
  const messages: ChatMessage[] =
    typeof input === 'string' ? [{ role: 'user', content: input }] : input.map((item, i) => messageOf(item, i));

  const tools = asked.tools?.map(({ type, name, description, parameters }) => {
    return { type, function: { name, description, parameters } };
  });
  const chosen =
    typeof choice === 'object' && choice ? ({ type: 'function', function: { name: choice.name } } as const) : choice;
  const toolUse = toolUseOf(tools, chosen, parallel);
  const format = asked.text?.format ?? { type: 'text' as const };
  const form = textForm(format);
  return {
    ...request,
    form: oneForm({ form }, toolUse && toolForm(toolUse, (i) => `tools[${i}].parameters`)),
    logprobs: wanted ? count : undefined,
    messages: instructions === null ? messages : [{ role: 'system', content: instructions }, ...messages],
    instructions,
    metadata: asked.metadata ?? {},
    toolUse,
    echoed: {
      parallel_tool_calls: parallel,
      text: { format },
      tool_choice: choice ?? 'auto',
      tools: asked.tools ?? [],
    },
  };
}

function textForm(format: z.infer<typeof responseFormat.flat>): Form | undefined {
  if (format.type === 'text') return undefined;
  const schema = format.type === 'json_schema' ? format.schema : undefined;
  return formatForm(format, schema, 'text.format.schema');
}

function messageOf(item: z.infer<typeof call | typeof output | typeof message>, index: number): ChatMessage {
  if (item.type === 'function_call_output') {
    return { role: 'tool', content: item.output, toolCallId: item.call_id };
  }
  if (item.type === 'function_call') {
    const { call_id: id, name } = item;
    const given = parsedArguments(item.arguments, `input[${index}].arguments`);
    return { role: 'assistant', content: '', toolCalls: [{ id, name, arguments: given }] };
  }
  const { role, content } = item;
  return { role: role === 'developer' ? 'system' : role, content: textOf(content) };
}

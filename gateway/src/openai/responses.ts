import { invalidField } from '@ptp/protocol/validation';
import type { FastifyInstance } from 'fastify';
import { z } from 'zod';
import type { ModelInfo } from '../decode/types.ts';
import { inSlices } from '../grammar/slices.ts';
import type { ChatMessage } from '../text/chat-message.ts';
import { boolean, object, text } from '../validation.ts';
import { parseBody, unsupportedInResponses } from './body.ts';
import { joinText, parseArguments, templateRole } from './messages.ts';
import { formatConstraint, textFormat } from './output-format.ts';
import { choiceRequests } from './prompt.ts';
import { checkEnding, commonRequest, sharedFields, tokenLimit, topLogprobs } from './request.ts';
import { type EndpointParts, respond } from './respond.ts';
import { ResponsesWriter } from './responses-stream.ts';
import { callMode, toolChoiceOf, toolFunction, toolsOf, toolUseOf, withToolConstraint } from './tools.ts';

const LOGPROBS = 'message.output_text.logprobs';
/** Accepted without effect, because responses contain no reasoning. */
const ENCRYPTED = 'reasoning.encrypted_content';

const part = object({
  type: z.enum(['input_text', 'output_text'], { error: 'input_text or output_text' }),
  text,
});
/** Content of a message or of a function's output. */
const content = z.union([text, z.array(part, { error: 'a string or an array of text parts' })]);
const message = object({
  type: z.literal('message', { error: 'message, reasoning, function_call or function_call_output' }).nullish(),
  role: z.enum(['system', 'developer', 'user', 'assistant'], { error: 'system, developer, user or assistant' }),
  content,
});
const call = object({ type: z.literal('function_call'), call_id: text, name: text, arguments: text });
const callOutput = object({
  type: z.literal('function_call_output'),
  call_id: text,
  output: content,
});
/** Reasoning of an earlier response, which chat templates leave out. */
const reasoning = object({ type: z.literal('reasoning') });
const inputError = 'a string or a non-empty array of messages, calls and their outputs';

/** Body of POST /v1/responses. */
export const responsesBody = object({
  ...sharedFields,
  input: z.union(
    [text, z.array(z.union([call, callOutput, reasoning, message]), { error: inputError }).min(1, inputError)],
    {
      error: inputError,
    },
  ),
  instructions: text.nullish(),
  max_output_tokens: tokenLimit,
  include: z
    .array(z.enum([LOGPROBS, ENCRYPTED], { error: `${LOGPROBS} or ${ENCRYPTED}` }), { error: 'an array' })
    .nullish(),
  top_logprobs: topLogprobs.nullish(),
  metadata: z.record(z.string(), z.string({ error: 'a string' }), { error: 'an object of strings' }).nullish(),
  store: boolean.nullish(),
  text: object({ format: textFormat.nullish() }).nullish(),
  tools: toolsOf(toolFunction).nullish(),
  tool_choice: toolChoiceOf({ name: toolFunction.name }).nullish(),
  parallel_tool_calls: boolean.nullish(),
});

/**
 * Serves POST /v1/responses (https://platform.openai.com/docs/api-reference/responses), which answers with a message,
 * tool calls, or both.
 */
export function responsesRoute(app: FastifyInstance, parts: EndpointParts): void {
  const { tokenizer, generator, chatTemplate } = parts;
  const { model } = generator;
  app.post('/v1/responses', async (http, reply) => {
    const body = parseBody(responsesBody, http.body, unsupportedInResponses);
    const request = await inSlices(() => parseResponses(body, model));
    return respond(parts, http, reply, {
      request,
      sequences: 1,
      newWriter: (run) => new ResponsesWriter(request, run),
      prepare: () => {
        const prompt = chatTemplate.encode(request.messages, tokenizer, model, { tools: request.toolUse?.tools });
        return choiceRequests([prompt], request, model.contextLength, model, 'input');
      },
    });
  });
}

/** A validated request of the responses API. */
export type ResponsesRequest = ReturnType<typeof parseResponses>;

/**
 * Validates a request whose body has the right types, and compiles its constraint.
 *
 * @throws PtpError `invalid_argument`, naming the field, its limit and the value, or `not_found` for another model
 */
function parseResponses(body: z.infer<typeof responsesBody>, model: ModelInfo) {
  const request = commonRequest(body, { field: 'max_output_tokens', value: body.max_output_tokens }, model);
  const withLogprobs = body.include?.includes(LOGPROBS) ?? false;
  const tops = body.top_logprobs ?? 0;
  if (tops > 0 && !withLogprobs) {
    throw invalidField('top_logprobs', `absent or 0 unless \`include\` has ${LOGPROBS}`, tops);
  }
  const { input, instructions = null, tool_choice: choice, parallel_tool_calls: parallel } = body;
  const messages: ChatMessage[] = typeof input === 'string' ? [{ role: 'user', content: input }] : messagesOf(input);
  const functions = body.tools?.map(({ type: _, ...tool }) => tool);
  const toolUse = toolUseOf(functions, choice, parallel);
  const format = body.text?.format ?? { type: 'text' as const };
  const schema = format.type === 'text' ? undefined : format.schema;
  const formatted = formatConstraint(format, schema, 'text.format.schema');
  const constraint = withToolConstraint(formatted, toolUse, (i) => `tools[${i}].parameters`);
  checkEnding(body, constraint);
  return {
    ...request,
    constraint,
    logprobs: withLogprobs ? tops : undefined,
    messages: instructions === null ? messages : [{ role: 'system' as const, content: instructions }, ...messages],
    instructions,
    metadata: body.metadata ?? {},
    toolUse,
    calls: callMode(toolUse, formatted),
    /** Fields that the response repeats. */
    echoed: {
      parallel_tool_calls: parallel ?? true,
      text: { format },
      tool_choice: choice ?? 'auto',
      tools: body.tools ?? [],
    },
  };
}

type Item = z.infer<typeof call | typeof callOutput | typeof reasoning | typeof message>;

/** Returns the messages of a conversation. A message of the assistant and the calls after it are one message. */
function messagesOf(items: readonly Item[]): ChatMessage[] {
  const messages: ChatMessage[] = [];
  for (const [i, item] of items.entries()) {
    const last = messages.at(-1);
    if (item.type === 'reasoning') continue;
    if (item.type === 'function_call') {
      const { call_id: id, name } = item;
      const calls = [
        ...(last?.toolCalls ?? []),
        { id, name, arguments: parseArguments(item.arguments, `input[${i}].arguments`) },
      ];
      if (last?.role === 'assistant') messages[messages.length - 1] = { ...last, toolCalls: calls };
      else messages.push({ role: 'assistant', content: '', toolCalls: calls });
    } else if (item.type === 'function_call_output') {
      messages.push({ role: 'tool', content: joinText(item.output), toolCallId: item.call_id });
    } else {
      messages.push({ role: templateRole(item.role), content: joinText(item.content) });
    }
  }
  if (messages.length === 0) throw invalidField('input', inputError, items);
  return messages;
}

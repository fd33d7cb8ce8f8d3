import { invalidField } from '@ptp/protocol/validation';
import type { FastifyInstance } from 'fastify';
import type { ModelInfo } from '../decode/types.ts';
import type { ChatMessage } from '../text/chat-message.ts';
import { boolean, object, positive } from '../validation.ts';
import { parseBody, unsupportedInChat } from './body.ts';
import { chatLogprobs, type TokenLogprob } from './logprobs.ts';
import { conversation, messageList } from './messages.ts';
import { choiceRequests } from './prompt.ts';
import { type CommonRequest, choiceFields, commonRequest, sharedFields, singleForm, topLogprobs } from './request.ts';
import { type EndpointParts, respond } from './respond.ts';
import { choicesWriter, type Format } from './stream.ts';
import { type CallPiece, ToolCallReader } from './tool-calls.ts';
import { type ToolUse, toolChoice, toolForm, tools, toolUseOf } from './tools.ts';

/** Body of POST /v1/chat/completions. */
export const chatBody = object({
  ...sharedFields,
  ...choiceFields,
  max_completion_tokens: positive,
  logprobs: boolean.nullish(),
  top_logprobs: topLogprobs.nullish(),
  messages: messageList,
  tools: tools.nullish(),
  tool_choice: toolChoice.nullish(),
  parallel_tool_calls: boolean.nullish(),
});

interface ChatRequest extends CommonRequest {
  readonly messages: readonly ChatMessage[];
  /** Undefined if no tool may be called. */
  readonly toolUse: ToolUse | undefined;
}

/** POST /v1/chat/completions (https://platform.openai.com/docs/api-reference/chat). */
export function chatRoute(app: FastifyInstance, parts: EndpointParts): void {
  const { tokenizer, generator, chatTemplate } = parts;
  const { model } = generator;
  app.post('/v1/chat/completions', async (http, reply) => {
    const request = parseChat(http.body, model);
    const { messages, toolUse } = request;
    return respond(parts, http, reply, {
      request,
      sequences: request.n,
      writer: choicesWriter(chatFormat(toolUse !== undefined)),
      prepare: () => {
        const prompt = chatTemplate.encode(messages, tokenizer, model, toolUse?.tools);
        return choiceRequests([prompt], request, model.contextLength, model, 'messages');
      },
    });
  });
}

/** @throws PtpError `invalid_argument` naming field, limit and value; `not_found` for another model */
function parseChat(given: unknown, model: ModelInfo): ChatRequest {
  const body = parseBody(chatBody, given, unsupportedInChat);
  const messages = conversation(body.messages);
  const request = commonRequest(body, body.max_completion_tokens ?? body.max_tokens, model);
  const tops = body.top_logprobs ?? 0;
  if (tops > 0 && !body.logprobs) throw invalidField('top_logprobs', 'absent or 0 unless `logprobs` is true', tops);
  const choice = body.tool_choice;
  const toolUse = toolUseOf(
    body.tools?.map((tool) => tool.function),
    typeof choice === 'object' && choice ? { name: choice.function.name } : choice,
    body.parallel_tool_calls ?? true,
  );
  const form = singleForm(request.form, toolUse && toolForm(toolUse, (i) => `tools[${i}].function.parameters`));
  return { ...request, form, logprobs: body.logprobs ? tops : undefined, messages, toolUse };
}

/** @param withTools reads tool calls out of the text */
function chatFormat(withTools: boolean): Format {
  const readers = new Map<number, ToolCallReader>();
  const readerOf = (index: number): ToolCallReader | undefined => {
    if (withTools && !readers.has(index)) readers.set(index, new ToolCallReader());
    return readers.get(index);
  };
  const finishOf = (index: number, finish: string) =>
    finish === 'stop' && (readers.get(index)?.calls ?? 0) > 0 ? 'tool_calls' : finish;
  return {
    idPrefix: 'chatcmpl-',
    object: 'chat.completion',
    chunkObject: 'chat.completion.chunk',
    first: (index) => chunk(index, { role: 'assistant', content: '', refusal: null }),
    piece(index, text, tokens) {
      const reader = readerOf(index);
      if (!reader) return chunk(index, { content: text }, null, tokens);
      const { text: content, calls } = reader.push(text);
      const toolCalls = calls.length > 0 && { tool_calls: calls.map(callDelta) };
      return chunk(index, { ...(content !== '' && { content }), ...toolCalls }, null, tokens);
    },
    last(index, finish) {
      const rest = readers.get(index)?.end() ?? '';
      return chunk(index, rest === '' ? {} : { content: rest }, finishOf(index, finish));
    },
    whole(index, text, finish, tokens) {
      const message = wholeMessage(text, readerOf(index));
      return { index, message, logprobs: chatLogprobs(tokens), finish_reason: finishOf(index, finish) };
    },
  };
}

function wholeMessage(text: string, reader: ToolCallReader | undefined): object {
  if (!reader) return { role: 'assistant', content: text, refusal: null };
  const read = reader.push(text);
  const content = read.text + reader.end();
  const calls = joinPieces(read.calls);
  const toolCalls = calls.length > 0 && { tool_calls: calls.map(callEntry) };
  return { role: 'assistant', content: toolCalls && content === '' ? null : content, refusal: null, ...toolCalls };
}

type Call = Required<Omit<CallPiece, 'index'>>;

function joinPieces(pieces: readonly CallPiece[]): Call[] {
  const calls: { id: string; name: string; arguments: string }[] = [];
  for (const { id, name, arguments: text } of pieces) {
    const call = calls.at(-1);
    if (id !== undefined) calls.push({ id, name: name ?? '', arguments: text });
    else if (call) call.arguments += text;
  }
  return calls;
}

function callDelta({ index, id, name, arguments: text }: CallPiece): object {
  const start = id === undefined ? {} : { id, type: 'function' };
  return { index, ...start, function: { ...(name !== undefined && { name }), arguments: text } };
}

function callEntry({ id, name, arguments: text }: Call): object {
  return { id, type: 'function', function: { name, arguments: text } };
}

function chunk(index: number, delta: object, finish: string | null = null, tokens?: readonly TokenLogprob[]): object {
  return { index, delta, logprobs: chatLogprobs(tokens), finish_reason: finish };
}

import { invalidField } from '@ptp/protocol/validation';
import type { FastifyInstance } from 'fastify';
import type { ModelInfo } from '../decode/types.ts';
import { boolean, object, positive } from '../validation.ts';
import { parseBody, unsupportedInChat } from './body.ts';
import { type ChoiceFormat, ChoicesWriter, type Format } from './choices-writer.ts';
import { chatLogprobs, type TokenLogprob } from './logprobs.ts';
import { conversation, messageList } from './messages.ts';
import { choiceRequests } from './prompt.ts';
import { choiceFields, commonRequest, sharedFields, topLogprobs } from './request.ts';
import { type EndpointParts, respond } from './respond.ts';
import { type CallPiece, ToolCallReader } from './tool-calls.ts';
import { toolChoice, tools, toolUseOf, withToolConstraint } from './tools.ts';

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

/** Serves POST /v1/chat/completions (https://platform.openai.com/docs/api-reference/chat). */
export function chatRoute(app: FastifyInstance, parts: EndpointParts): void {
  const { tokenizer, generator, chatTemplate } = parts;
  const { model } = generator;
  app.post('/v1/chat/completions', async (http, reply) => {
    const request = parseChat(http.body, model);
    const { messages, toolUse } = request;
    return respond(parts, http, reply, {
      request,
      sequences: request.n,
      newWriter: (run) => new ChoicesWriter(chatFormat(toolUse !== undefined), run),
      prepare: () => {
        const prompt = chatTemplate.encode(messages, tokenizer, model, toolUse?.tools);
        return choiceRequests([prompt], request, model.contextLength, model, 'messages');
      },
    });
  });
}

/**
 * Validates the body of a chat request.
 *
 * @throws PtpError `invalid_argument`, naming field, limit and value; `not_found` for another model
 */
function parseChat(given: unknown, model: ModelInfo) {
  const body = parseBody(chatBody, given, unsupportedInChat);
  const messages = conversation(body.messages);
  const request = commonRequest(body, body.max_completion_tokens ?? body.max_tokens, model);
  const tops = body.top_logprobs ?? 0;
  if (tops > 0 && !body.logprobs) throw invalidField('top_logprobs', 'absent or 0 unless `logprobs` is true', tops);
  const functions = body.tools?.map((tool) => tool.function);
  const choice = typeof body.tool_choice === 'object' ? body.tool_choice?.function : body.tool_choice;
  const toolUse = toolUseOf(functions, choice, body.parallel_tool_calls);
  const constraint = withToolConstraint(request.constraint, toolUse, (i) => `tools[${i}].function.parameters`);
  return { ...request, constraint, logprobs: body.logprobs ? tops : undefined, messages, toolUse };
}

/** @param withTools true if the answer may contain tool calls, which are then separated from its text */
function chatFormat(withTools: boolean): Format {
  return {
    idPrefix: 'chatcmpl-',
    object: 'chat.completion',
    chunkObject: 'chat.completion.chunk',
    newChoice: () => new ChatChoice(withTools),
  };
}

interface Call {
  readonly id: string;
  readonly type: 'function';
  readonly function: { readonly name: string; arguments: string };
}

class ChatChoice implements ChoiceFormat {
  readonly first = chunk({ role: 'assistant', content: '', refusal: null });
  readonly #reader: ToolCallReader | undefined;
  readonly #calls: Call[] = [];
  #content = '';
  #finish: string | null = null;

  constructor(withTools: boolean) {
    if (withTools) this.#reader = new ToolCallReader();
  }

  piece(raw: string, tokens?: readonly TokenLogprob[]): object {
    const { text, calls } = this.#reader?.push(raw) ?? { text: raw, calls: [] };
    this.#content += text;
    const content = (!this.#reader || text !== '') && { content: text };
    const toolCalls = calls.length > 0 && { tool_calls: calls.map((piece) => this.#addCall(piece)) };
    return chunk({ ...content, ...toolCalls }, tokens);
  }

  last(finish: string): object {
    const content = this.#reader?.end() ?? '';
    this.#content += content;
    this.#finish = finish === 'stop' && this.#calls.length > 0 ? 'tool_calls' : finish;
    return { ...chunk(content === '' ? {} : { content }), finish_reason: this.#finish };
  }

  whole(tokens?: readonly TokenLogprob[]): object {
    const calls = this.#calls.length > 0 && { tool_calls: this.#calls };
    const content = calls && this.#content === '' ? null : this.#content;
    const message = { role: 'assistant', content, refusal: null, ...calls };
    return { message, logprobs: chatLogprobs(tokens), finish_reason: this.#finish };
  }

  /** Adds a piece to its call, and returns the entry for the chunk of a stream. */
  #addCall({ index, id, name, arguments: text }: CallPiece): object {
    const call = this.#calls[index];
    if (call) {
      call.function.arguments += text;
      return { index, function: { arguments: text } };
    }
    const opened = { id: id ?? '', type: 'function', function: { name: name ?? '', arguments: text } } as const;
    this.#calls.push({ ...opened, function: { ...opened.function } });
    return { index, ...opened };
  }
}

function chunk(delta: object, tokens?: readonly TokenLogprob[]): object {
  return { delta, logprobs: chatLogprobs(tokens), finish_reason: null };
}

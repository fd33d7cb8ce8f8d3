import { invalidField } from '@ptp/protocol/validation';
import type { FastifyInstance } from 'fastify';
import type { z } from 'zod';
import type { ModelInfo } from '../decode/types.ts';
import { inSlices } from '../grammar/slices.ts';
import { boolean, object, text } from '../validation.ts';
import { parseBody, unsupportedInChat } from './body.ts';
import { type ChoiceFormat, ChoicesWriter, type Format } from './choices-writer.ts';
import { chatLogprobs, type TokenLogprob } from './logprobs.ts';
import { conversation, messageList, promptEnd, promptEndOf, templateVariables } from './messages.ts';
import { choiceRequests } from './prompt.ts';
import { opensThoughts, ReasoningReader, type SplitReasoning } from './reasoning.ts';
import {
  checkEnding,
  commonRequest,
  completionAndChatFields,
  sharedFields,
  type TokenLimit,
  tokenLimit,
  topLogprobs,
} from './request.ts';
import { type EndpointParts, respond } from './respond.ts';
import { type CallMode, type CallPiece, ToolCallReader } from './tool-calls.ts';
import { callMode, toolChoice, tools, toolUseOf, withToolConstraint } from './tools.ts';

/** Body of POST /v1/chat/completions. */
export const chatBody = object({
  ...sharedFields,
  ...completionAndChatFields,
  max_completion_tokens: tokenLimit,
  logprobs: boolean.nullish(),
  top_logprobs: topLogprobs.nullish(),
  messages: messageList,
  tools: tools.nullish(),
  tool_choice: toolChoice.nullish(),
  parallel_tool_calls: boolean.nullish(),
  chat_template_kwargs: templateVariables,
  ...promptEnd,
  reasoning_effort: text.nullish(),
});

/** Serves POST /v1/chat/completions (https://platform.openai.com/docs/api-reference/chat). */
export function chatRoute(app: FastifyInstance, parts: EndpointParts): void {
  const { tokenizer, generator, chatTemplate } = parts;
  const { model } = generator;
  app.post('/v1/chat/completions', async (http, reply) => {
    const body = parseBody(chatBody, http.body, unsupportedInChat);
    const request = await inSlices(() => parseChat(body, model));
    const { messages, toolUse, variables, end } = request;
    // A given beginning of the answer, or a constraint, leaves no room for thoughts, unless the constraint applies only
    // to calls that the model may make.
    const mayThink = !end.continuesLast && (!request.constraint || request.calls === 'possible');
    const thinks = chatTemplate.thinks && mayThink;
    let reasoning: AnswerParts['reasoning'] = thinks ? 'possible' : 'none';
    return respond(parts, http, reply, {
      request,
      sequences: request.n,
      prepare: () => {
        const prompt = chatTemplate.encode(messages, tokenizer, model, { tools: toolUse?.tools, variables, ...end });
        if (thinks && opensThoughts(prompt, tokenizer)) reasoning = 'open';
        return choiceRequests([prompt], request, model.contextLength, model, 'messages');
      },
      newWriter: (run) => new ChoicesWriter(chatFormat({ reasoning, calls: request.calls }), run),
    });
  });
}

/**
 * Validates a request whose body has the right types, and compiles its constraint.
 *
 * @throws PtpError `invalid_argument`, naming the field, its limit and the value, or `not_found` for another model
 */
function parseChat(body: z.infer<typeof chatBody>, model: ModelInfo) {
  const messages = conversation(body.messages);
  const request = commonRequest(body, tokenLimitOf(body), model);
  const tops = body.top_logprobs ?? 0;
  if (tops > 0 && !body.logprobs) throw invalidField('top_logprobs', 'absent or 0 unless `logprobs` is true', tops);
  const functions = body.tools?.map((tool) => tool.function);
  const choice = typeof body.tool_choice === 'object' ? body.tool_choice?.function : body.tool_choice;
  const toolUse = toolUseOf(functions, choice, body.parallel_tool_calls);
  const constraint = withToolConstraint(request.constraint, toolUse, (i) => `tools[${i}].function.parameters`);
  checkEnding(body, constraint); // Again, because tools may have added a constraint.
  const variables = { ...reasoningVariables(body.reasoning_effort), ...body.chat_template_kwargs };
  const end = promptEndOf(body, messages);
  const calls = callMode(toolUse, request.constraint);
  const logprobs = body.logprobs ? tops : undefined;
  return { ...request, constraint, logprobs, messages, toolUse, calls, variables, end };
}

/**
 * Returns the template variables for a reasoning effort. Templates of models that do not reason have none of them, so
 * the field has no effect there.
 */
function reasoningVariables(effort: string | null | undefined): Record<string, unknown> {
  if (effort == null) return {};
  return { reasoning_effort: effort, ...(effort === 'none' && { enable_thinking: false }) };
}

function tokenLimitOf(body: z.infer<typeof chatBody>): TokenLimit {
  const field = body.max_completion_tokens == null ? 'max_tokens' : 'max_completion_tokens';
  return { field, value: body[field] };
}

/** Parts of an answer that are separated from its text. */
interface AnswerParts {
  /** State of the thoughts. `open` means that the prompt has begun them. */
  readonly reasoning: 'none' | 'possible' | 'open';
  readonly calls: CallMode | undefined;
}

function chatFormat(answerParts: AnswerParts): Format {
  return {
    idPrefix: 'chatcmpl-',
    object: 'chat.completion',
    chunkObject: 'chat.completion.chunk',
    newChoice: () => new ChatChoice(answerParts),
  };
}

interface Call {
  readonly id: string;
  readonly type: 'function';
  readonly function: { readonly name: string; arguments: string };
}

class ChatChoice implements ChoiceFormat {
  readonly first = chunk({ role: 'assistant', content: '', refusal: null });
  readonly #thoughtsReader: ReasoningReader | undefined;
  readonly #callReader: ToolCallReader | undefined;
  readonly #calls: Call[] = [];
  #reasoning = '';
  #content = '';
  #finish: string | null = null;

  constructor({ reasoning, calls }: AnswerParts) {
    if (reasoning !== 'none') this.#thoughtsReader = new ReasoningReader(reasoning === 'open');
    if (calls) this.#callReader = new ToolCallReader(calls);
  }

  piece(raw: string, tokens?: readonly TokenLogprob[]): object {
    const split = this.#thoughtsReader?.push(raw) ?? { reasoning: '', text: raw };
    return chunk(this.#add(split), tokens);
  }

  last(finish: string): object {
    const split = this.#thoughtsReader?.end() ?? { reasoning: '', text: '' };
    const delta = this.#add(split, finish);
    const endsInCall = this.#callReader?.isInCall ?? false;
    this.#finish = finish === 'stop' && this.#calls.length > 0 && !endsInCall ? 'tool_calls' : finish;
    return { ...chunk(delta), finish_reason: this.#finish };
  }

  whole(tokens?: readonly TokenLogprob[]): object {
    const calls = this.#calls.length > 0 && { tool_calls: this.#calls };
    const content = calls && this.#content === '' ? null : this.#content;
    const reasoning = this.#reasoning !== '' && { reasoning_content: this.#reasoning };
    const message = { role: 'assistant', content, refusal: null, ...reasoning, ...calls };
    return { message, logprobs: chatLogprobs(tokens), finish_reason: this.#finish };
  }

  /** Adds a piece of the answer, and returns its part of the chunk of a stream. */
  #add({ reasoning, text: raw }: SplitReasoning, finish?: string): object {
    const { text, calls } = this.#callReader?.push(raw) ?? { text: raw, calls: [] };
    const content = text + ((finish && this.#callReader?.end(finish)) || '');
    this.#reasoning += reasoning;
    this.#content += content;
    return {
      ...(reasoning !== '' && { reasoning_content: reasoning }),
      ...(content !== '' && { content }),
      ...(calls.length > 0 && { tool_calls: calls.map((piece) => this.#addCall(piece)) }),
    };
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

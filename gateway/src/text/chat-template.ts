import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { Template } from '@huggingface/jinja';
import { PtpError } from '@ptp/protocol/errors';
import { beginning, type ModelInfo } from '../decode/types.ts';
import type { ChatMessage } from '../openai/messages.ts';
import { checkLength } from '../openai/prompt.ts';
import { toolsAsText } from '../openai/tool-prompt.ts';
import { OPEN, type Tool } from '../openai/tools.ts';
import type { Tokenizer } from './tokenizer.ts';

/** How a model wants a conversation written: a Jinja template, as Hugging Face models bring it. */
export class ChatTemplate {
  readonly #template: Template;
  /** Whether it writes tools and calls itself, in the way that ours are forced into (tools.ts). */
  readonly #knowsTools: boolean;

  /**
   * @param source sees `messages` (role system, user, assistant or tool, content, tool_calls), `tools`, `bos_token`, `eos_token` and
   *   `add_generation_prompt` (true), and may call `raise_exception`
   * @throws PtpError `failed_precondition` if it is not a template
   */
  constructor(source: string) {
    try {
      this.#template = new Template(source);
      this.#knowsTools = source.includes('tools') && source.includes(OPEN);
    } catch (cause) {
      throw new PtpError('failed_precondition', `the chat template is invalid: ${messageOf(cause)}`, { cause });
    }
  }

  /**
   * Token ids of a conversation, which begin with the token that the model has before every text. The template's special tokens count as such;
   * those spelt in a message stay text.
   *
   * @throws PtpError `invalid_argument` if the template refuses the conversation; `out_of_range` if it is certain not
   *   to fit the context
   */
  encode(
    messages: readonly ChatMessage[],
    tokenizer: Tokenizer,
    model: ModelInfo,
    tools: readonly Tool[] = [],
  ): number[] {
    const given = this.#knowsTools
      ? { messages: messages.map(asTemplatesKnow), tools: tools.map((tool) => ({ type: 'function', function: tool })) }
      : { messages: toolsAsText(messages, tools), tools: [] };
    const guard = unusedCharacter(JSON.stringify(given));
    const guarded = mapStrings(given, (text) => tokenizer.guardSpecial(text, guard)) as typeof given;
    const begin = beginning(model);
    const rendered = this.#render({
      messages: guarded.messages,
      ...(guarded.tools.length > 0 && { tools: guarded.tools }),
      bos_token: begin.map((token) => tokenizer.name(token)).join(''),
      eos_token: tokenizer.name(model.endOfText),
      add_generation_prompt: true,
    });
    checkLength(rendered.replaceAll(guard, ''), tokenizer, model, 'messages');
    const ids = tokenizer.encodeRendered(rendered, guard);
    return ids[0] === begin[0] ? ids : [...begin, ...ids];
  }

  #render(context: Record<string, unknown>): string {
    try {
      return this.#template.render(context);
    } catch (cause) {
      const message = `\`messages\` do not fit the chat template: ${messageOf(cause)}`;
      throw new PtpError('invalid_argument', message, { field: 'messages', cause });
    }
  }
}

/**
 * The chat_template.jinja of a model folder.
 *
 * @throws PtpError `failed_precondition` if it is missing or not a template
 */
export async function loadChatTemplate(folder: string): Promise<ChatTemplate> {
  try {
    return new ChatTemplate(await readFile(join(folder, 'chat_template.jinja'), 'utf8'));
  } catch (cause) {
    if (cause instanceof PtpError) throw cause;
    throw new PtpError('failed_precondition', `no readable chat_template.jinja in ${folder}`, { cause });
  }
}

/** A message as Hugging Face's templates expect it. */
function asTemplatesKnow({ role, content, toolCalls, toolCallId }: ChatMessage): object {
  const calls = toolCalls?.map(({ id, name, arguments: given }) => {
    return { id, type: 'function', function: { name, arguments: given } };
  });
  return { role, content, ...(calls && { tool_calls: calls }), ...(toolCallId && { tool_call_id: toolCallId }) };
}

function mapStrings(value: unknown, map: (text: string) => string): unknown {
  if (typeof value === 'string') return map(value);
  if (Array.isArray(value)) return value.map((each) => mapStrings(each, map));
  if (typeof value !== 'object' || value === null) return value;
  return Object.fromEntries(Object.entries(value).map(([name, each]) => [map(name), mapStrings(each, map)]));
}

/** One of Unicode's noncharacters, which are meant for internal use like this one. */
function unusedCharacter(text: string): string {
  for (let code = 0xfdd0; code <= 0xfdef; code++) {
    const character = String.fromCharCode(code);
    if (!text.includes(character)) return character;
  }
  throw new PtpError('invalid_argument', '`messages` must not use all noncharacters U+FDD0..U+FDEF', {
    field: 'messages',
  });
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

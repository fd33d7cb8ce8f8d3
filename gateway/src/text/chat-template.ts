import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { Template } from '@huggingface/jinja';
import { PtpError } from '@ptp/protocol/errors';
import { isLongNumber } from '@ptp/protocol/long-number';
import { isUnsafeName } from '@ptp/protocol/ordered-object';
import { fieldError } from '@ptp/protocol/validation';
import type { ChatMessage, FunctionTool } from './chat-message.ts';
import { afterBeginning, beginning, checkLength, type PromptModel } from './encode.ts';
import type { Tokenizer } from './tokenizer.ts';
import { CALL_OPEN, toolsAsText } from './tool-format.ts';

/** Inputs of a template in addition to the messages. */
export interface TemplateInputs {
  readonly tools?: readonly FunctionTool[] | undefined;
  /** Variables of the model's own template, such as `enable_thinking`. */
  readonly variables?: Readonly<Record<string, unknown>> | undefined;
  /** False to omit the header of the answer. Default: true. */
  readonly addGenerationPrompt?: boolean;
  /** True to end the prompt within the last message, which the answer continues. */
  readonly continuesLast?: boolean;
}

/** Properties of a model that its chat template depends on. */
export interface TemplateOptions {
  /** Value of `bos_token`. Default: the name of the token that precedes every text. */
  readonly beginName?: string | undefined;
  /**
   * True if the template writes every token of the prompt, as in transformers. Default: the prompt begins with the token
   * that precedes every text, whether the template writes it or not, as in llama.cpp.
   */
  readonly isWhole?: boolean;
}

/** A model's format for conversations: a Jinja template, as Hugging Face models ship it. */
export class ChatTemplate {
  readonly #template: Template;
  readonly #options: TemplateOptions;
  /** True if the template itself renders tool definitions and tool calls, in the format of tool-format.ts. */
  readonly #supportsTools: boolean;
  /** True if the model may think before it answers, between `<think>` and `</think>`. */
  readonly thinks: boolean;

  /**
   * @param source template over `messages` (role, content, tool_calls, tool_call_id), `tools`, `bos_token`, `eos_token`
   *   and `add_generation_prompt`. It may call `raise_exception`
   * @throws PtpError `failed_precondition` if the template does not parse
   */
  constructor(source: string, options: TemplateOptions = {}) {
    this.#options = options;
    try {
      this.#template = new Template(source);
      this.thinks = source.includes('</think>');
      this.#supportsTools = source.includes('tools') && source.includes(CALL_OPEN);
    } catch (cause) {
      throw new PtpError('failed_precondition', `the chat template is invalid: ${messageOf(cause)}`, { cause });
    }
  }

  /**
   * Returns the token ids of a conversation. Names of special tokens stand for these tokens only in the template. They
   * stay text within a message.
   *
   * @throws PtpError `invalid_argument` if the template rejects the conversation, `out_of_range` if the conversation
   *   cannot fit the context
   */
  encode(
    messages: readonly ChatMessage[],
    tokenizer: Tokenizer,
    model: PromptModel,
    { tools = [], variables = {}, addGenerationPrompt = true, continuesLast = false }: TemplateInputs = {},
  ): number[] {
    const given = this.#supportsTools
      ? {
          messages: messages.map(asTemplateMessage),
          tools: tools.map((tool) => ({ type: 'function', function: tool })),
          variables,
        }
      : { messages: toolsAsText(messages, tools).map(asTemplateMessage), tools: [], variables };
    const [guard, quote, end] = unusedCharacters(JSON.stringify(given));
    const guardText = (text: string) => tokenizer.guardSpecial(text, guard);
    // A guarded name keeps its place in the object. The guard is removed from the rendered text.
    const guardName = (name: string) => (isUnsafeName(name) ? guard + name : guardText(name));
    const guarded = mapStrings(given, guardText, guardName, quote) as typeof given;
    if (continuesLast) (guarded.messages.at(-1) as { content: string }).content += end;
    const withQuotes = this.#render({
      ...guarded.variables,
      messages: guarded.messages,
      ...(guarded.tools.length > 0 && { tools: guarded.tools }),
      bos_token:
        this.#options.beginName ??
        beginning(model)
          .map((token) => tokenizer.name(token))
          .join(''),
      eos_token: tokenizer.name(model.endOfText),
      add_generation_prompt: addGenerationPrompt && !continuesLast,
    });
    const whole = withQuotes.replaceAll(new RegExp(`"?${quote}|${quote}"?`, 'g'), '');
    if (continuesLast && !whole.includes(end)) {
      throw fieldError(
        'continue_final_message',
        'is not supported by the chat template, which changes the last message',
      );
    }
    const rendered = continuesLast ? whole.slice(0, whole.lastIndexOf(end)) : whole;
    checkLength(rendered.replaceAll(guard, ''), tokenizer, model, 'messages');
    const ids = tokenizer.encodeRendered(rendered, guard);
    return this.#options.isWhole ? ids : afterBeginning(ids, model);
  }

  #render(context: Record<string, unknown>): string {
    try {
      return this.#template.render(context);
    } catch (cause) {
      const message = `the chat template rejects \`messages\`: ${messageOf(cause)}`;
      throw new PtpError('invalid_argument', message, { field: 'messages', cause });
    }
  }
}

/** Name of the template's file in a model folder. */
export const CHAT_TEMPLATE = 'chat_template.jinja';

/**
 * Loads the chat template of a model folder.
 *
 * @throws PtpError `failed_precondition` if the file is missing or not a template
 */
export async function loadChatTemplate(folder: string, options?: TemplateOptions): Promise<ChatTemplate> {
  try {
    return new ChatTemplate(await readFile(join(folder, CHAT_TEMPLATE), 'utf8'), options);
  } catch (cause) {
    if (cause instanceof PtpError) throw cause;
    const message = `cannot read ${CHAT_TEMPLATE} in ${folder}`;
    throw new PtpError('failed_precondition', message, { cause });
  }
}

/** Returns a message in the form that Hugging Face's templates expect. */
function asTemplateMessage({ role, content, reasoning, toolCalls, toolCallId }: ChatMessage): object {
  const calls = toolCalls?.map(({ id, name, arguments: given }) => {
    return { id, type: 'function', function: { name, arguments: given } };
  });
  return {
    role,
    content,
    ...(reasoning !== undefined && { reasoning_content: reasoning }),
    ...(calls && { tool_calls: calls }),
    ...(toolCallId && { tool_call_id: toolCallId }),
  };
}

/**
 * Applies `map` to all strings of a value, and `mapName` to the names of its properties. Templates support only
 * numbers that a double can represent, so a longer number becomes a string between two `quote` characters. In the
 * rendered text, these characters and the quotation marks next to them are removed.
 */
function mapStrings(
  value: unknown,
  map: (text: string) => string,
  mapName: (name: string) => string,
  quote: string,
): unknown {
  if (typeof value === 'string') return map(value);
  if (isLongNumber(value)) return quote + value.rawJSON + quote;
  if (Array.isArray(value)) return value.map((each) => mapStrings(each, map, mapName, quote));
  if (typeof value !== 'object' || value === null) return value;
  const entries = Object.entries(value).map(([name, each]) => [mapName(name), mapStrings(each, map, mapName, quote)]);
  return Object.fromEntries(entries);
}

/** Returns three Unicode noncharacters, which are reserved for internal use, that `text` does not contain. */
function unusedCharacters(text: string): [string, string, string] {
  const all = Array.from({ length: 32 }, (_, i) => String.fromCharCode(0xfdd0 + i));
  const [first, second, third] = all.filter((character) => !text.includes(character));
  if (first && second && third) return [first, second, third];
  const message = '`messages` must leave at least three of U+FDD0..U+FDEF unused';
  throw new PtpError('invalid_argument', message, { field: 'messages' });
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { Template } from '@huggingface/jinja';
import { PtpError } from '@ptp/core/errors.ts';
import { beginning, type PairFacts } from './generation.ts';
import { chatLogprobs, type TokenLogprob } from './logprobs.ts';
import { checkLength } from './prompt.ts';
import type { Format } from './respond.ts';
import type { ChatMessage } from './schema.ts';
import type { Tokenizer } from './tokenizer.ts';

/** How a model wants a conversation written: a Jinja template, as Hugging Face models bring it. */
export class ChatTemplate {
  readonly #template: Template;

  /**
   * @param source sees `messages` (role system, user or assistant, and content), `bos_token`, `eos_token` and
   *   `add_generation_prompt` (true), and may call `raise_exception`
   * @throws PtpError `failed_precondition` if it is not a template
   */
  constructor(source: string) {
    try {
      this.#template = new Template(source);
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
  encode(messages: readonly ChatMessage[], tokenizer: Tokenizer, facts: PairFacts): number[] {
    const guard = unusedCharacter(messages);
    const guarded = messages.map(({ role, content }) => ({ role, content: tokenizer.guardSpecial(content, guard) }));
    const begin = beginning(facts);
    const rendered = this.#render({
      messages: guarded,
      bos_token: begin.map((token) => tokenizer.name(token)).join(''),
      eos_token: tokenizer.name(facts.endOfText),
      add_generation_prompt: true,
    });
    checkLength(rendered.replaceAll(guard, ''), tokenizer, facts, 'messages');
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

/** https://platform.openai.com/docs/api-reference/chat */
export const chatFormat: Format = {
  idPrefix: 'chatcmpl-',
  object: 'chat.completion',
  chunkObject: 'chat.completion.chunk',
  first: (index) => chunk(index, { role: 'assistant', content: '', refusal: null }),
  piece: (index, content, tokens) => chunk(index, { content }, null, tokens),
  last: (index, finish) => chunk(index, {}, finish),
  whole: (index, content, finish, tokens) => ({
    index,
    message: { role: 'assistant', content, refusal: null },
    logprobs: chatLogprobs(tokens),
    finish_reason: finish,
  }),
};

function chunk(index: number, delta: object, finish: string | null = null, tokens?: readonly TokenLogprob[]): object {
  return { index, delta, logprobs: chatLogprobs(tokens), finish_reason: finish };
}

/** One of Unicode's noncharacters, which are meant for internal use like this one. */
function unusedCharacter(messages: readonly ChatMessage[]): string {
  for (let code = 0xfdd0; code <= 0xfdef; code++) {
    const character = String.fromCharCode(code);
    if (!messages.some(({ content }) => content.includes(character))) return character;
  }
  throw new PtpError('invalid_argument', '`messages` must not use all noncharacters U+FDD0..U+FDEF', {
    field: 'messages',
  });
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

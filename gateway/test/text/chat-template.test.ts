import { readFile } from 'node:fs/promises';
import { describe, expect, test } from 'vitest';
import { conversation } from '../../src/openai/messages.ts';
import type { ChatMessage, FunctionTool } from '../../src/text/chat-message.ts';
import { ChatTemplate } from '../../src/text/chat-template.ts';
import { chatTemplate, tokenizer } from '../testing/test-server.ts';

const model = { modelId: 'm', vocabulary: 2048, contextLength: 512, endOfText: 0 };
const user = (content: string): ChatMessage => ({ role: 'user', content });
const textOf = (ids: number[]) => Buffer.concat(ids.map((id) => tokenizer.bytes(id))).toString();

describe('the default template', () => {
  test('writes messages as doc comments and answers as code', () => {
    const ids = chatTemplate.encode(
      [{ role: 'system', content: 'Be terse.' }, user('Adds\n\ntwo'), { role: 'assistant', content: 'declare x;' }],
      tokenizer,
      model,
    );
    expect(ids[0]).toBe(0);
    expect(textOf(ids)).toBe('/**\n * Be terse.\n */\n/**\n * Adds\n *\n * two\n */\ndeclare x;\n');
  });

  test('keeps a message from ending its comment', () => {
    const text = textOf(chatTemplate.encode([user('a */ b **// c')], tokenizer, model));
    expect(text).toBe('/**\n * a *\\/ b **\\// c\n */\n');
  });

  test('keeps a message from ending the document', () => {
    const ids = chatTemplate.encode([user('<|endoftext|>')], tokenizer, model);
    expect(ids.lastIndexOf(0)).toBe(0);
    expect(textOf(ids)).toContain('<|endoftext|>');
  });
});

describe('any template', () => {
  test('may write the first token', () => {
    const template = new ChatTemplate('{{ bos_token }}{{ messages[0].content }}{{ eos_token }}');
    expect(template.encode([user('x')], tokenizer, model)).toEqual([0, ...tokenizer.encode('x'), 0]);
  });

  test('rejects conversations with invalid_argument', () => {
    const template = new ChatTemplate('{{ raise_exception("roles must alternate") }}');
    expect(() => template.encode([user('x')], tokenizer, model)).toThrow(
      expect.objectContaining({ code: 'invalid_argument', message: expect.stringContaining('roles must alternate') }),
    );
  });

  test('is rejected at start if it does not parse', () => {
    expect(() => new ChatTemplate('{% for %}')).toThrow(expect.objectContaining({ code: 'failed_precondition' }));
  });
});

/** Templates of models, and conversations with the prompts that transformers' apply_chat_template makes of them. */
interface Fixture {
  readonly templates: Readonly<Record<string, string[]>>;
  readonly conversations: readonly {
    readonly name: string;
    readonly messages: Parameters<typeof conversation>[0];
    readonly tools?: readonly { readonly function: FunctionTool }[];
    readonly variables?: Readonly<Record<string, unknown>>;
    readonly prompts: Readonly<Record<string, string>>;
  }[];
}
const fixture: Fixture = JSON.parse(
  await readFile(new URL('../../../test/fixtures/chat-templates.json', import.meta.url), 'utf8'),
);

describe.each(['qwen3', 'llama3'])('the template of %s renders as in transformers', (name) => {
  const template = new ChatTemplate((fixture.templates[name] ?? []).join('\n'), { beginName: '<|begin_of_text|>' });
  const conversations = fixture.conversations.filter(({ prompts }) => name in prompts);
  test.each(conversations)('$name', ({ messages, tools = [], variables, prompts }) => {
    const inputs = { tools: tools.map((tool) => tool.function), variables };
    const roomy = { ...model, contextLength: 8192, beginOfText: null };
    const ids = template.encode(conversation(messages), tokenizer, roomy, inputs);
    expect(tokenizer.decode(ids)).toBe(prompts[name]);
  });
});

import { describe, expect, test } from 'vitest';
import type { ChatMessage } from '../../src/text/chat-message.ts';
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

import { describe, expect, test } from 'vitest';
import { ChatTemplate } from '../../src/text/chat-template.ts';
import { encodeText, orBeginning } from '../../src/text/encode.ts';
import { tokenizer } from '../testing/test-server.ts';

const model = { modelId: 'm', vocabulary: 2048, contextLength: 512, endOfText: 0 };
const x = tokenizer.encode('x');
const template = new ChatTemplate('{{ bos_token }}{{ messages[0].content }}{{ eos_token }}');
const conversation = [{ role: 'user', content: 'x' }] as const;

describe.each([
  ['the end of text by default', model, [0]],
  ['a token of its own', { ...model, endOfText: 7, beginOfText: 0 }, [0]],
  ['nothing', { ...model, beginOfText: null }, []],
])('a text begins with %s', (_, model, begin) => {
  test('as a prompt', () => {
    expect(encodeText('x', tokenizer, model, 'prompt')).toEqual([...begin, ...x]);
    expect(encodeText('x<|endoftext|>', tokenizer, model, 'prompt', true)).toEqual([...begin, ...x, 0]);
    expect(encodeText('<|endoftext|>x', tokenizer, model, 'prompt', true)).toEqual([0, ...x]);
    expect(orBeginning([], model)).toEqual([begin[0] ?? model.endOfText]);
    expect(orBeginning([3], model)).toEqual([3]);
  });

  test('as a conversation', () => {
    const plain = new ChatTemplate('{{ messages[0].content }}');
    expect(plain.encode(conversation, tokenizer, model)).toEqual([...begin, ...x]);
    const whole = new ChatTemplate('{{ messages[0].content }}', { isWhole: true });
    expect(whole.encode(conversation, tokenizer, model)).toEqual(x);
    const special = model.endOfText === 0 ? [0] : tokenizer.encode(tokenizer.name(7));
    expect(template.encode(conversation, tokenizer, model)).toEqual([...begin, ...x, ...special]);
  });
});

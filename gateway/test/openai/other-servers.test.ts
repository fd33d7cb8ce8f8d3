import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { ChatTemplate } from '../../src/text/chat-template.ts';
import { startServer, type TestServer, tokenByToken, tokenizer } from '../testing/test-server.ts';

let server: TestServer;
beforeAll(async () => {
  server = await startServer();
});
afterAll(() => server.close());

const messages = [{ role: 'user', content: 'hi' }];

/** Lets the model write a text. */
function writes(text: string, finish: 'stop' | 'length'): void {
  server.generator.script = () => ({ steps: tokenByToken(text), finish });
}

async function chat(fields: object) {
  const response = await server.chat({ messages, max_tokens: 100, ...fields });
  const body = await response.json();
  return response.ok ? body.choices[0] : body.error;
}

describe('continue_final_message', () => {
  const given = [...messages, { role: 'assistant', content: 'interface Foo { ' }];

  test('ends the prompt within the last message', async () => {
    writes('a', 'stop');
    const fields = { messages: given, continue_final_message: true, add_generation_prompt: false };
    expect((await chat(fields)).finish_reason).toBe('stop');
    const prompt = tokenizer.decode(server.generator.requests.at(-1)?.prompt ?? []);
    expect(prompt.endsWith('interface Foo { ')).toBe(true);
  });

  test.each([
    [{ messages, continue_final_message: true }, 'continue_final_message'],
    [{ messages: given, continue_final_message: true, add_generation_prompt: true }, 'add_generation_prompt'],
  ])('is validated: %j', async (fields, param) => {
    expect(await chat(fields)).toMatchObject({ param, type: 'invalid_request_error' });
  });
});

describe('constraints under the names of other servers', () => {
  test.each([
    [{ guided_json: { const: 'a' } }, '"a"'],
    [{ guided_regex: '[0-9]+' }, '42'],
    [{ guided_choice: ['a', 'b'] }, 'b'],
    [{ response_format: { type: 'json_object', schema: { const: 1 } } }, '1'],
    [{ guided_json: null, guided_regex: '[0-9]+' }, '42'],
  ])('work: %j', async (fields, text) => {
    writes(text, 'stop');
    expect((await server.complete({ prompt: 'a', ...fields })).status).toBe(200);
    expect([server.isAllowed(text), server.isAllowed('x')]).toEqual([true, false]);
  });

  test.each([
    [{ grammar: 'root ::= "a"' }, '`grammar` is not supported'],
    [{ guided_grammar: 'root ::= "a"' }, '`guided_grammar` is not supported'],
    [{ allowed_token_ids: [5] }, '`allowed_token_ids` is not supported'],
    [{ bad_words: ['export'] }, '`bad_words` is not supported'],
    [{ response_format: { type: 'json_object', schema: { type: 'odd' } } }, '`response_format.schema.type` must be'],
    [{ guided_regex: '(?=a)' }, '`guided_regex` must be'],
    [{ guided_json: {}, guided_regex: 'a' }, '`guided_regex` must be absent with `guided_json`, got "a"'],
    [
      { guided_regex: 'a', response_format: { type: 'json_object' } },
      '`guided_regex` must be absent with `response_format`',
    ],
  ])('or return 400: %j', async (fields, message) => {
    const response = await server.complete({ prompt: 'a', ...fields });
    expect([response.status, (await response.json()).error.message]).toEqual([400, expect.stringContaining(message)]);
  });
});

describe('values that other servers accept', () => {
  const request = () => server.generator.requests.at(-1);

  test('max_tokens -1 allows the rest of the context, which is the default in chat only', async () => {
    writes('ok', 'stop');
    const limits: unknown[] = [];
    for (const fields of [{}, { max_tokens: -1 }]) {
      await server.chat({ messages, ...fields });
      limits.push(request()?.maxTokens);
      await server.complete({ prompt: 'a', ...fields });
      limits.push(request()?.maxTokens);
    }
    const [ofChat, ofCompletion] = server.generator.requests.slice(-2).map(({ prompt }) => 512 - prompt.length);
    expect(limits).toEqual([ofChat, 16, ofChat, ofCompletion]);
  });

  test('min_tokens is compared with max_tokens 0, and with the field that limits', async () => {
    const messageOf = async (response: Response) => (await response.json()).error.message;
    const completion = await server.complete({ prompt: 'a', max_tokens: 0, echo: true, min_tokens: 1 });
    expect(await messageOf(completion)).toBe('`min_tokens` must be at most `max_tokens` (0), got 1');
    const response = await server.chat({ messages, max_completion_tokens: 2, min_tokens: 3 });
    expect(await messageOf(response)).toBe('`min_tokens` must be at most `max_completion_tokens` (2), got 3');
  });

  test('max_tokens 0 with echo returns the prompt alone, with its log-probabilities', async () => {
    writes('more', 'length');
    const fields = { prompt: 'let x', max_tokens: 0, echo: true, logprobs: 1 };
    const { choices, usage } = await (await server.complete(fields)).json();
    expect(choices).toMatchObject([{ text: 'let x', finish_reason: 'length' }]);
    expect(choices[0].logprobs.tokens.join('')).toBe('let x');
    expect(usage.completion_tokens).toBe(0);
    expect((await server.complete({ prompt: 'a', max_tokens: 0 })).status).toBe(400);
  });

  test('top_p 0 keeps the most probable token only', async () => {
    writes('ok', 'stop');
    await chat({ top_p: 0, temperature: 1 });
    expect(request()?.sampling).toMatchObject({ temperature: 0, topP: 1 });
    expect(await chat({ top_p: 0, temperature: 3 })).toMatchObject({ param: 'temperature' });
  });

  test('reasoning_effort is a variable of the template, without effect in others', async () => {
    writes('ok', 'stop');
    expect((await chat({ reasoning_effort: 'low' })).finish_reason).toBe('stop');
    const template = new ChatTemplate('{{ reasoning_effort }} {{ enable_thinking }}{{ messages[0].content }}');
    const own = await startServer({ template });
    try {
      own.generator.script = () => ({ steps: tokenByToken('ok') });
      await (await own.chat({ messages, reasoning_effort: 'none' })).json();
      expect(tokenizer.decode(own.generator.requests.at(-1)?.prompt ?? [])).toContain('none false');
    } finally {
      await own.close();
    }
  });
});

import { PtpError } from '@ptp/protocol/errors';
import OpenAI from 'openai';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { ChatTemplate } from '../../src/text/chat-template.ts';
import { events, startServer, type TestServer, tokenByToken, tokenizer } from '../testing/test-server.ts';

let server: TestServer;
let client: OpenAI;
beforeAll(async () => {
  server = await startServer();
  client = new OpenAI({ baseURL: `${server.url}/v1`, apiKey: 'none', maxRetries: 0 });
  server.generator.script = () => ({ steps: tokenByToken('declare 😀;') });
});
afterAll(() => server.close());

const messages = [
  { role: 'developer', content: 'Be terse.' },
  {
    role: 'user',
    content: [
      { type: 'text', text: 'Write' },
      { type: 'text', text: 'code.' },
    ],
  },
] satisfies OpenAI.ChatCompletionMessageParam[];

describe('a chat completion', () => {
  test("has OpenAI's shape", async () => {
    const body = await (await server.chat({ messages })).json();
    expect(body).toMatchObject({
      id: expect.stringMatching(/^chatcmpl-\w+$/),
      object: 'chat.completion',
      model: 'test-model',
      choices: [
        {
          index: 0,
          message: { role: 'assistant', content: 'declare 😀;', refusal: null },
          logprobs: null,
          finish_reason: 'stop',
        },
      ],
    });
    const prompt = [0, ...tokenizer.encode('/**\n * Be terse.\n */\n/**\n * Write\n * code.\n */\n')];
    expect(server.generator.requests.at(-1)).toMatchObject({ prompt, maxTokens: 512 - prompt.length });
    expect(body.usage.prompt_tokens).toBe(prompt.length);
  });

  test('streams the role, then the text, the finish reason and the usage', async () => {
    const data = await events(await server.chat({ messages, stream: true, stream_options: { include_usage: true } }));
    expect(data.pop()).toBe('[DONE]');
    const chunks = data.map((event) => JSON.parse(event));
    expect(chunks.pop()).toMatchObject({
      choices: [],
      usage: { completion_tokens: tokenizer.encode('declare 😀;').length },
    });
    const choices = chunks.map((chunk) => chunk.choices[0]);
    expect(chunks.every(({ object, usage }) => object === 'chat.completion.chunk' && usage === null)).toBe(true);
    expect(choices[0].delta).toEqual({ role: 'assistant', content: '', refusal: null });
    expect(choices.at(-1)).toEqual({ index: 0, delta: {}, logprobs: null, finish_reason: 'stop' });
    expect(choices.map(({ delta }) => delta.content ?? '').join('')).toBe('declare 😀;');
  });

  test('prefers max_completion_tokens', async () => {
    const body = await (await server.chat({ messages, max_completion_tokens: 2, max_tokens: 9 })).json();
    expect(body.usage.completion_tokens).toBe(2);
    expect(body.choices[0].finish_reason).toBe('length');
  });
});

describe("OpenAI's client", () => {
  test('chats', async () => {
    const { choices, usage } = await client.chat.completions.create({ model: 'test-model', messages });
    expect(choices[0]?.message.content).toBe('declare 😀;');
    expect(usage?.completion_tokens_details?.accepted_prediction_tokens).toBe(0);
  });

  test('streams a chat with two choices', async () => {
    const texts = ['', ''];
    const stream = await client.chat.completions.create({ model: 'default', messages, n: 2, seed: 3, stream: true });
    for await (const { choices } of stream) {
      for (const { index, delta } of choices) texts[index] += delta.content ?? '';
    }
    expect(texts).toEqual(['declare 😀;', 'declare 😀;']);
    expect(server.generator.requests.slice(-2).map(({ seed }) => seed)).toEqual([3n, 4n]);
  });

  test('assembles a streamed chat', async () => {
    const runner = client.chat.completions.stream({
      model: 'default',
      messages,
      stream_options: { include_usage: true },
    });
    const whole = await runner.finalChatCompletion();
    expect(whole.choices[0]?.message).toMatchObject({ role: 'assistant', content: 'declare 😀;' });
    expect(whole.usage?.total_tokens).toBeGreaterThan(0);
  });

  test('streams a completion', async () => {
    let text = '';
    for await (const { choices } of await client.completions.create({ model: 'default', prompt: 'x', stream: true })) {
      text += choices[0]?.text ?? '';
    }
    expect(text).toBe('declare 😀;');
  });

  test('lists and retrieves the model', async () => {
    const { data } = await client.models.list();
    expect(data.map(({ id }) => id)).toEqual(['test-model']);
    expect((await client.models.retrieve('default')).id).toBe('test-model');
    await expect(client.models.retrieve('other')).rejects.toMatchObject({ status: 404, code: 'model_not_found' });
  });

  test('recognises our errors', async () => {
    const create = (body: object) => client.chat.completions.create({ model: 'default', messages, ...body });
    await expect(create({ temperature: 3 })).rejects.toBeInstanceOf(OpenAI.BadRequestError);
    await expect(create({ model: 'gpt-4' })).rejects.toBeInstanceOf(OpenAI.NotFoundError);
    await expect(create({ max_tokens: 9999 })).rejects.toMatchObject({ param: 'max_tokens' });
    const long = [{ role: 'user' as const, content: 'word '.repeat(600) }];
    await expect(create({ messages: long })).rejects.toMatchObject({ code: 'context_length_exceeded' });
  });

  test('throws errors that follow the first text', async () => {
    const { script } = server.generator;
    const error = new PtpError('unavailable', 'the verifier is gone');
    server.generator.script = () => ({ steps: tokenByToken('let x'), error });
    const read = async () => {
      for await (const _ of await client.completions.create({ model: 'default', prompt: 'x', stream: true }));
    };
    await expect(read()).rejects.toThrow('the verifier is gone');
    server.generator.script = script;
  });
});

describe('with a template of a model that thinks', () => {
  const template = new ChatTemplate(
    "{{ messages[0].content }}{% if budget %}<think>\n{% endif %}{# its answers have '</think>' #}",
  );
  let thinking: TestServer;
  beforeAll(async () => {
    thinking = await startServer({ template });
  });
  afterAll(() => thinking.close());
  const body = { messages: [{ role: 'user', content: 'Why?' }] };

  test('thoughts become `reasoning_content`, whole and streamed', async () => {
    thinking.generator.script = () => ({ steps: tokenByToken('<think>\nHm. \n</think>\n\nSo.') });
    const { choices } = await (await thinking.chat(body)).json();
    expect(choices[0].message).toEqual({
      role: 'assistant',
      content: 'So.',
      refusal: null,
      reasoning_content: 'Hm.',
    });
    const data = await events(await thinking.chat({ ...body, stream: true }));
    const deltas = data.slice(0, -1).map((event) => JSON.parse(event).choices[0].delta);
    expect(deltas.map((delta) => delta.reasoning_content ?? '').join('')).toBe('Hm.');
    expect(deltas.map((delta) => delta.content ?? '').join('')).toBe('So.');
  });

  test('the prompt may open the thoughts, by a variable of the template', async () => {
    thinking.generator.script = () => ({ steps: tokenByToken('Hm.</think>So.') });
    const open = { ...body, chat_template_kwargs: { budget: 1 } };
    const { choices } = await (await thinking.chat(open)).json();
    expect(choices[0].message).toMatchObject({ content: 'So.', reasoning_content: 'Hm.' });
    expect(tokenizer.decode(thinking.generator.requests.at(-1)?.prompt ?? [])).toBe('Why?<think>\n');
  });
});

import { PtpError } from '@ptp/protocol/errors';
import OpenAI from 'openai';
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { startServer, type TestServer, tokenByToken, tokenizer } from '../testing/test-server.ts';

let server: TestServer;
let client: OpenAI;
beforeAll(async () => {
  server = await startServer();
  client = new OpenAI({ baseURL: `${server.url}/v1`, apiKey: 'none', maxRetries: 0 });
});
afterAll(() => server.close());
beforeEach(() => {
  server.generator.requests.length = 0;
  server.generator.script = () => ({ steps: tokenByToken('let x = 1;') });
});

describe('a response, with the official client', () => {
  test('to a text', async () => {
    const response = await client.responses.create({ model: 'default', input: 'Write.', instructions: 'Be terse.' });
    expect(response.output_text).toBe('let x = 1;');
    const tokens = tokenizer.encode('let x = 1;').length;
    const prompt = [0, ...tokenizer.encode('/**\n * Be terse.\n */\n/**\n * Write.\n */\n')];
    expect(server.generator.requests[0]).toMatchObject({ prompt });
    expect(response).toMatchObject({
      object: 'response',
      status: 'completed',
      error: null,
      instructions: 'Be terse.',
      model: 'test-model',
      usage: { input_tokens: prompt.length, output_tokens: tokens, total_tokens: prompt.length + tokens },
    });
  });

  test('to a conversation, cut off by the limit', async () => {
    const response = await client.responses.create({
      model: 'default',
      input: [
        { role: 'user', content: [{ type: 'input_text', text: 'Write' }] },
        { role: 'assistant', content: 'let' },
        { role: 'user', content: 'on' },
      ],
      max_output_tokens: 2,
      metadata: { of: 'test' },
    });
    expect(response).toMatchObject({
      status: 'incomplete',
      incomplete_details: { reason: 'max_output_tokens' },
      metadata: { of: 'test' },
      output: [{ type: 'message', status: 'incomplete', role: 'assistant' }],
    });
    expect(response.usage?.output_tokens).toBe(2);
  });

  test('in a stream, with its events in order', async () => {
    const stream = client.responses.stream({ model: 'default', input: 'Write.' });
    const events = [];
    for await (const event of stream) events.push(event);
    const types = events.map(({ type }) => type);
    expect([...new Set(types)]).toEqual([
      'response.created',
      'response.in_progress',
      'response.output_item.added',
      'response.content_part.added',
      'response.output_text.delta',
      'response.output_text.done',
      'response.content_part.done',
      'response.output_item.done',
      'response.completed',
    ]);
    expect(events.map(({ sequence_number }) => sequence_number)).toEqual(events.map((_, i) => i));
    const deltas = events.flatMap((event) => (event.type === 'response.output_text.delta' ? [event.delta] : []));
    expect(deltas.length).toBeGreaterThan(2);
    expect(deltas.join('')).toBe('let x = 1;');
    expect((await stream.finalResponse()).output_text).toBe('let x = 1;');
  });

  test('with log-probabilities', async () => {
    const { output } = await client.responses.create({
      model: 'default',
      input: 'Write.',
      include: ['message.output_text.logprobs'],
      top_logprobs: 2,
    });
    const [message] = output as OpenAI.Responses.ResponseOutputMessage[];
    const [part] = (message?.content ?? []) as OpenAI.Responses.ResponseOutputText[];
    expect(part?.logprobs?.map(({ token }) => token).join('')).toBe('let x = 1;');
    expect(part?.logprobs?.every(({ top_logprobs }) => top_logprobs.length === 2)).toBe(true);
  });

  test('that fails midway ends with response.failed', async () => {
    server.generator.script = () => ({
      steps: tokenByToken('let'),
      error: new PtpError('unavailable', 'the verifier ended the stream'),
    });
    const stream = await client.responses.create({ model: 'default', input: 'Write.', stream: true });
    const events = [];
    for await (const event of stream) events.push(event);
    expect(events.at(-1)).toMatchObject({
      type: 'response.failed',
      response: { status: 'failed', error: { code: 'server_error', message: expect.stringContaining('verifier') } },
    });
  });
});

describe('rejects', () => {
  test.each([
    [{}, 'input', '`input` must be a string or a non-empty array of messages, calls and their outputs, got nothing'],
    [
      { input: [] },
      'input',
      '`input` must be a string or a non-empty array of messages, calls and their outputs, got an array of 0',
    ],
    [
      { input: [{ type: 'reasoning', id: 'rs_1', summary: [] }] },
      'input',
      '`input` must be a string or a non-empty array of messages, calls and their outputs, got an array of 1',
    ],
    [{ input: [{ role: 'user', content: [{ type: 'input_image' }] }] }, 'input[0].content[0].type', undefined],
    [
      { input: 'a', max_output_tokens: 0 },
      'max_output_tokens',
      '`max_output_tokens` must be an integer >= 1, or -1 for no limit, got 0',
    ],
    [{ input: 'a', previous_response_id: 'resp_1' }, 'previous_response_id', '`previous_response_id` is not supported'],
    [
      { input: 'a', tools: [{ type: 'web_search' }] },
      'tools[0].type',
      '`tools[0].type` must be "function", got "web_search"',
    ],
    [{ input: 'a', prompt: { id: 'x' } }, 'prompt', '`prompt` is not supported'],
    [{ input: 'a', reasoning: 5 }, 'reasoning', '`reasoning` is not supported'],
    [{ input: 'a', reasoning: { effort: 'high' } }, 'reasoning', '`reasoning` is not supported'],
    [{ input: 'a', text: 'x' }, 'text', '`text` must be an object, got "x"'],
    [{ input: 'a', background: true }, 'background', '`background` is not supported'],
    [
      { input: 'a', text: { format: { type: 'xml' } } },
      'text.format.type',
      '`text.format.type` must be text, json_object or json_schema, got "xml"',
    ],
    [
      { input: 'a', text: { format: { type: 'json_schema', schema: { $dynamicRef: '#a' } } } },
      'text.format.schema.$dynamicRef',
      undefined,
    ],
    [{ input: 'a', include: ['file_search_call.results'] }, 'include[0]', undefined],
    [{ input: 'a', max_tokens: 5 }, 'max_tokens', '`max_tokens` is not supported'],
    [{ input: 'a', max_completion_tokens: 5 }, 'max_completion_tokens', undefined],
    [{ input: 'a', stop: 'x' }, 'stop', undefined],
    [{ input: 'a', n: 2 }, 'n', '`n` is not supported'],
    [{ input: 'a', response_format: { type: 'json_object' } }, 'response_format', undefined],
    [{ input: 'a', structured_outputs: { regex: 'a' } }, 'structured_outputs', undefined],
    [
      { input: 'a', text: { format: { type: 'json_object' } }, min_tokens: 3 },
      'min_tokens',
      '`min_tokens` must be absent with constrained output (a response format, `structured_outputs` or `tools`), got 3',
    ],
    [{ input: 'a', text: { format: { type: 'json_object' } }, ignore_eos: true }, 'ignore_eos', undefined],
  ])('%j', async (body, param, message) => {
    const response = await server.post('/v1/responses', { model: 'default', ...body });
    expect(response.status).toBe(400);
    expect((await response.json()).error).toMatchObject({ param, ...(message && { message }) });
  });

  test('nothing if values have no effect', async () => {
    const neutral = {
      tools: [],
      reasoning: { summary: 'auto' },
      suffix: 'unknown here',
      stop: [],
      n: 1,
      response_format: { type: 'text' },
      structured_outputs: null,
      store: true,
      background: false,
      truncation: 'disabled',
      text: { format: { type: 'text' } },
    };
    const response = await server.post('/v1/responses', { model: 'default', input: 'a', ...neutral });
    expect(response.status).toBe(200);
  });
});

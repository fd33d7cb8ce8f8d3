import { once } from 'node:events';
import { connect } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { PtpError } from '@ptp/protocol/errors';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { events, startServer, type TestServer, tokenByToken, until } from '../testing/test-server.ts';

let server: TestServer;
const works = () => ({ steps: tokenByToken('ok') });
beforeAll(async () => {
  server = await startServer({ bodyLimit: 1024 * 1024, maxStreams: 4 });
  server.generator.script = works;
});
afterEach(async () => {
  server.generator.script = works;
  const response = await server.complete({ prompt: 'a' });
  expect((await response.json()).choices[0].text).toBe('ok');
});
afterAll(() => server.close());

const chat = [{ role: 'user', content: 'hi' }];

describe('400 names field, limit and value', () => {
  const completion: [object, string, string][] = [
    [{ temperature: -1 }, 'temperature', '`temperature` must be in [0, 2], got -1'],
    [{ temperature: 'hot' }, 'temperature', '`temperature` must be a number, got "hot"'],
    [{ top_p: -0.1 }, 'top_p', '`top_p` must be in (0, 1], got -0.1'],
    [{ top_k: 1.5 }, 'top_k', '`top_k` must be an integer >= 0, or -1 to disable it, got 1.5'],
    [{ top_k: 5000 }, 'top_k', '`top_k` must be 0 (off) or an integer in [1, 2048], got 5000'],
    [{ n: 129 }, 'n', '`n` must be an integer in [1, 128], got 129'],
    [{ n: 0 }, 'n', '`n` must be an integer in [1, 128], got 0'],
    [{ n: 9 }, 'n', '`n` times the number of prompts must be at most 4, got 9'],
    [{ max_tokens: 0 }, 'max_tokens', '`max_tokens` must be an integer >= 1, or -1 for no limit, got 0'],
    [{ seed: 0.5 }, 'seed', '`seed` must be an integer in [-2^63, 2^63), got 0.5'],
    [{ seed: 2 ** 63 }, 'seed', '`seed` must be an integer in [-2^63, 2^63), got 9223372036854776000'],
    [
      { stop: Array(17).fill('a') },
      'stop',
      '`stop` must be a string or an array of up to 16 strings, got an array of 17',
    ],
    [{ stop: ['a', ''] }, 'stop[1]', '`stop[1]` must be a non-empty string, got ""'],
    [{ stop: 5 }, 'stop', '`stop` must be a string or an array of up to 16 strings, got 5'],
    [{ stream: 'yes' }, 'stream', '`stream` must be true or false, got "yes"'],
    [{ ptp: { draft: 1 } }, 'ptp.draft', '`ptp.draft` must be true or false, got 1'],
    [{ ptp: { draft_length: 0 } }, 'ptp.draft_length', '`ptp.draft_length` must be an integer in [1, 64], got 0'],
    [
      { ptp: { draft_mode: 'fast' } },
      'ptp.draft_mode',
      '`ptp.draft_mode` must be one of auto, overlap, sequential, plain, got "fast"',
    ],
    [{ model: 5 }, 'model', '`model` must be a string, got 5'],
    [
      { response_format: { type: 'json_schema', json_schema: { name: 'x' } } },
      'response_format.json_schema.schema',
      '`response_format.json_schema.schema` must be a JSON Schema, got nothing',
    ],
    [
      { response_format: { type: 'json_schema' } },
      'response_format.json_schema',
      '`response_format.json_schema` must be an object, got nothing',
    ],
    [{ prompt: 5 }, 'prompt', '`prompt` must be a string or an array of token ids, got 5'],
    [{ prompt: ['a', 5] }, 'prompt[1]', '`prompt[1]` must be a string or an array of token ids, got 5'],
    [{ prompt: [1, 2048] }, 'prompt[1]', '`prompt[1]` must be a token id in [0, 2047], got 2048'],
    [{ prompt: [[1], [2, 'x']] }, 'prompt[1][1]', '`prompt[1][1]` must be a token id in [0, 2047], got "x"'],
    [{ prompt: '\ud800' }, 'prompt', '`prompt` must be free of lone surrogates, got "\\ud800"'],
    [
      { stream_options: {} },
      'stream_options',
      '`stream_options` must be absent unless `stream` is true, got an object',
    ],
    [{ best_of: 2 }, 'best_of', '`best_of` must be equal to `n` (1), got 2'],
    [{ prompt: ['a', 'b', 'c'], n: 2 }, 'n', '`n` times the number of prompts must be at most 4, got 6'],
  ];
  test.each(completion)('%j', async (body, param, message) => {
    const response = await server.complete({ prompt: 'a', ...body });
    expect(await response.json()).toEqual({ error: { message, type: 'invalid_request_error', param, code: null } });
    expect(response.status).toBe(400);
  });

  const called = { id: 'call_1', type: 'function', function: { name: 'f', arguments: '{}' } };
  const messages: [unknown, string, string][] = [
    [undefined, 'messages', '`messages` must be a non-empty array of messages, got nothing'],
    [[], 'messages', '`messages` must be a non-empty array of messages, got an array of 0'],
    [
      [{ role: 'bot', content: '' }],
      'messages[0].role',
      'must be system, developer, user, assistant or tool, got "bot"',
    ],
    [[{ role: 'tool', content: '' }], 'messages[0].tool_call_id', 'must be the id of a tool call, got nothing'],
    [
      [{ role: 'user', content: '', tool_calls: [called] }],
      'messages[0].tool_calls',
      'absent unless `role` is assistant',
    ],
    [
      [{ role: 'assistant', tool_calls: [{ ...called, function: { name: 'f', arguments: '[]' } }] }],
      'messages[0].tool_calls[0].function.arguments',
      'must be the JSON text of an object, got "[]"',
    ],
    [
      [
        {
          role: 'assistant',
          tool_calls: [{ ...called, function: { name: 'f', arguments: `{"a":${'['.repeat(300)}${']'.repeat(300)}}` } }],
        },
      ],
      'messages[0].tool_calls[0].function.arguments',
      'must be nested at most 200 levels deep',
    ],
    [[{ role: 'user' }], 'messages[0].content', 'must be a string or an array of text parts, got nothing'],
    [[{ role: 'user', content: 5 }], 'messages[0].content', 'must be a string or an array of text parts, got 5'],
    [
      [...chat, { role: 'user', content: [{ type: 'image_url', image_url: {} }] }],
      'messages[1].content[0].type',
      'must be "text", got "image_url"',
    ],
    [[{ role: 'user', content: '\udfff' }], 'messages[0].content', 'must be free of lone surrogates, got "\\udfff"'],
  ];
  test.each(messages)('messages %j', async (given, param, message) => {
    const response = await server.chat({ messages: given });
    expect(response.status).toBe(400);
    expect((await response.json()).error).toMatchObject({ param, message: expect.stringContaining(message) });
  });
});

describe('400 for unsupported fields with an effect', () => {
  const completion = [{ suffix: 'x' }, { max_completion_tokens: 5 }, { max_output_tokens: 5 }];
  const conversation = [
    { functions: [{}] },
    { modalities: ['text', 'audio'] },
    { audio: { voice: 'x' } },
    { web_search_options: {} },
    { max_output_tokens: 5 },
  ];
  const cases = [
    ...completion.map((field) => ['/v1/completions', { prompt: 'a', ...field }, Object.keys(field)[0]] as const),
    ...conversation.map(
      (field) => ['/v1/chat/completions', { messages: chat, ...field }, Object.keys(field)[0]] as const,
    ),
  ];
  test.each(cases)('%s %j', async (path, body, param) => {
    const response = await server.post(path, body);
    expect(response.status).toBe(400);
    expect((await response.json()).error).toMatchObject({ param, message: `\`${param}\` is not supported` });
  });

  test('values without effect pass', async () => {
    const neutral = {
      tools: [],
      tool_choice: 'auto',
      response_format: { type: 'text' },
      modalities: ['text'],
      logprobs: false,
    };
    expect((await server.chat({ messages: chat, ...neutral, top_logprobs: null })).status).toBe(200);
  });
});

describe('400 context_length_exceeded', () => {
  test.each([
    ['the prompt alone', { prompt: Array(512).fill(5) }, 'has 512 tokens and leaves no room for a completion'],
    ['a text too long to tokenise', { prompt: 'ab '.repeat(300_000) }, 'has at least'],
  ])('%s', async (_, body, message) => {
    const response = await server.complete(body);
    expect(response.status).toBe(400);
    const { error } = await response.json();
    expect(error).toMatchObject({ code: 'context_length_exceeded', param: 'prompt' });
    expect(error.message).toContain("This model's maximum context length is 512 tokens");
    expect(error.message).toContain(message);
  });

  test('is not the code of a token limit that is too large, because a shorter prompt is not needed', async () => {
    const { error } = await (await server.complete({ prompt: Array(500).fill(5), max_tokens: 13 })).json();
    expect(error).toEqual({
      code: null,
      param: 'max_tokens',
      type: 'invalid_request_error',
      message: '`max_tokens` must be at most 12 after a prompt of 500 tokens, in a context of 512, got 13',
    });
    const limited = await (await server.chat({ messages: chat, max_completion_tokens: 9999 })).json();
    expect(limited.error.param).toBe('max_completion_tokens');
  });

  test('a conversation', async () => {
    const messages = [{ role: 'user', content: 'word '.repeat(600) }];
    const { error } = await (await server.chat({ messages })).json();
    expect(error).toMatchObject({ code: 'context_length_exceeded', param: 'messages' });
  });
});

describe('bodies', () => {
  const error = async (response: Response) => ((await response.json()) as { error: { message: string } }).error.message;

  test.each(['{"prompt": ', '', 'nothing'])('that are not JSON are rejected: %j', async (body) => {
    const response = await server.post('/v1/completions', body);
    expect([response.status, await error(response)]).toEqual([400, 'the request body is not valid JSON']);
  });

  test.each(['[]', '5', 'null', '"text"'])('that are not an object are rejected: %s', async (body) => {
    const response = await server.post('/v1/completions', body);
    expect([response.status, await error(response)]).toEqual([
      400,
      expect.stringContaining('`body` must be an object'),
    ]);
  });

  test.each([
    ['[', ']'],
    ['{"a":', '}'],
  ])('that are nested too deep are rejected: %s', async (open, close) => {
    const body = `{"prompt": "a", "x": ${open.repeat(50_000)}1${close.repeat(50_000)}}`;
    const response = await server.post('/v1/completions', body);
    expect([response.status, await error(response)]).toEqual([
      400,
      'the request body must be nested at most 200 levels deep',
    ]);
  });

  test('that are not UTF-8 are rejected, not repaired', async () => {
    const body = Buffer.concat([Buffer.from('{"prompt": "'), Buffer.of(0xff), Buffer.from('"}')]);
    const response = await server.post('/v1/completions', body);
    expect([response.status, await error(response)]).toEqual([400, 'the request body is not valid UTF-8']);
  });

  test('of another content type are rejected', async () => {
    for (const type of ['text/plain', 'application/x-www-form-urlencoded', '']) {
      const response = await server.post('/v1/completions', '{"prompt": "a"}', { headers: { 'content-type': type } });
      expect([response.status, await error(response)]).toEqual([415, 'the content type must be application/json']);
    }
  });

  test('may declare their charset', async () => {
    const headers = { 'content-type': 'application/json; charset=utf-8' };
    expect((await server.post('/v1/completions', '{"prompt": "é"}', { headers })).status).toBe(200);
  });

  test.each([
    ['of known length', () => new Uint8Array(50_000_000).fill(32)],
    ['of unknown length', () => new Blob([new Uint8Array(50_000_000).fill(32)]).stream()],
  ])('of 50 MB are rejected, %s', async (_, body) => {
    const init = { body: body() as BodyInit, duplex: 'half' } as RequestInit;
    const response = await server.post('/v1/completions', '', init);
    expect(response.status).toBe(413);
    expect((await response.json()).error.type).toBe('invalid_request_error');
  });

  test('that end early are logged as client errors', async () => {
    server.logs.length = 0;
    const socket = connect(server.port, '127.0.0.1');
    socket.write('POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n');
    socket.write('content-length: 500\r\n\r\n{"prompt":');
    await sleep(50);
    socket.destroy();
    // The request of the previous test, with status 413, may be logged in between.
    const broken = () => server.logs.map((line) => JSON.parse(line)).find(({ status }) => status !== 413);
    await until(() => broken() !== undefined);
    expect(broken()).toMatchObject({ level: 'info', status: 400, msg: 'rejected' });
  });

  test('that are too large are rejected before they are sent', async () => {
    const socket = connect(server.port, '127.0.0.1');
    socket.write(
      'POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 50000000\r\n\r\n',
    );
    const [answer] = await once(socket, 'data');
    expect(String(answer)).toContain('HTTP/1.1 413');
    socket.destroy();
  });
});

describe('routes', () => {
  test.each(['/nothing', '/v1', '/v1/embeddings?x=1', '/v1/completions/x'])('404 for %s', async (path) => {
    const response = await fetch(server.url + path);
    expect(response.status).toBe(404);
    const message = `Invalid URL (GET ${path.split('?')[0]})`;
    expect(await response.json()).toEqual({ error: { message, type: 'not_found_error', param: null, code: null } });
  });

  test('404 comes before the body is read', async () => {
    expect((await server.post('/v1/nothing', '{"broken')).status).toBe(404);
  });

  test('400 for an invalid path', async () => {
    const response = await fetch(`${server.url}/v1/models/%zz`);
    expect([response.status, (await response.json()).error.type]).toEqual([400, 'invalid_request_error']);
  });

  test.each([
    ['GET', '/v1/completions', 'POST'],
    ['PUT', '/v1/chat/completions', 'POST'],
    ['DELETE', '/v1/models/default', 'GET, HEAD'],
    ['POST', '/v1/models', 'GET, HEAD'],
    ['POST', '/healthz', 'GET, HEAD'],
  ])('405 for %s %s', async (method, path, allow) => {
    const response = await fetch(server.url + path, { method, ...(method !== 'GET' && { body: 'broken' }) });
    expect([response.status, response.headers.get('allow')]).toEqual([405, allow]);
    expect((await response.json()).error.code).toBe('method_not_allowed');
  });

  test('404 for another model', async () => {
    const response = await server.complete({ model: 'gpt-4', prompt: 'a' });
    expect(response.status).toBe(404);
    expect((await response.json()).error).toMatchObject({ code: 'model_not_found', param: 'model' });
  });
});

describe('failures of the generator', () => {
  const secret = new Error('tensor of /home/secret is broken');

  test('before the first text have an HTTP status', async () => {
    for (const stream of [false, true]) {
      server.generator.script = () => ({
        steps: [],
        error: new PtpError('unavailable', 'the verifier does not answer'),
      });
      const response = await server.complete({ prompt: 'a', stream });
      expect([response.status, (await response.json()).error.message]).toEqual([503, 'the verifier does not answer']);
    }
  });

  test('with status 503 are logged once until a request is served, without a stack', async () => {
    const lost = () => ({ steps: [], error: new PtpError('unavailable', 'the verifier does not answer') });
    const served = () => ({ steps: tokenByToken('let x') });
    const warnings = () =>
      server.logs.map((line) => JSON.parse(line)).filter(({ level }) => level === 'warn' || level === 'error');
    server.generator.script = served;
    await server.complete({ prompt: 'a' });
    server.logs.length = 0;
    server.generator.script = lost;
    for (const stream of [false, true, false]) await (await server.complete({ prompt: 'a', stream })).text();
    expect(warnings()).toMatchObject([
      { msg: 'requests fail with status 503', reason: 'the verifier does not answer' },
    ]);
    expect(warnings()[0]).not.toHaveProperty('err');
    server.generator.script = served;
    await (await server.complete({ prompt: 'a', stream: true })).text();
    server.generator.script = lost;
    await server.complete({ prompt: 'a' });
    expect(warnings()).toHaveLength(2);
  });

  test('that are unexpected return 500 and show details only in the log', async () => {
    server.generator.script = () => ({ steps: [], error: secret });
    const response = await server.complete({ prompt: 'a' });
    expect(response.status).toBe(500);
    expect(await response.json()).toEqual({
      error: { message: 'internal error', type: 'server_error', param: null, code: null },
    });
    expect(server.logs.join('')).toContain('/home/secret');
  });

  test('after the first text become the last event of the stream', async () => {
    server.generator.script = () => ({ steps: tokenByToken('let x'), error: secret });
    const response = await server.complete({ prompt: 'a', stream: true });
    expect(response.status).toBe(200);
    const data = await events(response);
    expect(JSON.parse(data.at(-1) ?? '')).toMatchObject({ error: { message: 'internal error', type: 'server_error' } });
    expect(data).not.toContain('[DONE]');
  });

  test('in one choice abort the others', async () => {
    server.generator.script = ({ seed }) =>
      seed === 1n ? { steps: [[5]], endless: true } : { steps: [[5], [5]], error: secret };
    expect((await server.complete({ prompt: 'a', n: 2, seed: 1, max_tokens: 400 })).status).toBe(500);
    expect(server.generator.aborted).toBeGreaterThan(0);
  });

  test('include a generator that ends without a finish reason', async () => {
    server.generator.script = () => ({ steps: [], error: undefined });
    expect((await server.complete({ prompt: 'a' })).status).toBe(500);
  });
});

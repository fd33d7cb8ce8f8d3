import { brotliCompressSync, deflateSync, gzipSync } from 'node:zlib';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { startServer, type TestServer, tokenByToken, tokenizer } from '../testing/test-server.ts';

let server: TestServer;
beforeAll(async () => {
  server = await startServer({ bodyLimit: 4 * 1024 * 1024 });
  server.generator.script = () => ({ steps: tokenByToken('ok') });
});
afterAll(() => server.close());

const BIG = '9007199254740993';
const messageOf = async (response: Response) => (await response.json()).error?.message;

describe('numbers that no double holds', () => {
  const schema = (text: string) => `{"prompt": "", "structured_outputs": {"json": ${text}}}`;

  test.each([
    [`{"const": ${BIG}}`, BIG],
    [`{"enum": [1, -${BIG}], "type": "integer"}`, `-${BIG}`],
    [`{"const": {"a": [${BIG}]}}`, `{"a":[${BIG}]}`],
    ['{"const": 1e400}', '1e400'],
    [`{"const": ${'9'.repeat(400)}}`, '9'.repeat(400)],
  ])('stay exact in the values of a schema: %s', async (text, value) => {
    expect((await server.post('/v1/completions', schema(text))).status).toBe(200);
    expect(server.isAllowed(value)).toBe(true);
    expect(server.isAllowed('9007199254740992')).toBe(false);
  });

  test.each([
    ['minimum', [false, true, true]],
    ['exclusiveMinimum', [false, false, true]],
    ['maximum', [true, true, false]],
    ['exclusiveMaximum', [true, false, false]],
    ['multipleOf', [false, true, false]],
  ])('stay exact as `%s`', async (keyword, allowed) => {
    const response = await server.post('/v1/completions', schema(`{"type": "integer", "${keyword}": ${BIG}}`));
    expect(response.status).toBe(200);
    expect(['9007199254740992', BIG, '9007199254740994'].map(server.isAllowed)).toEqual(allowed);
  });

  test('are rejected as a negative `multipleOf`', async () => {
    const response = await server.post('/v1/completions', schema(`{"type": "integer", "multipleOf": -${BIG}}`));
    expect([response.status, await messageOf(response)]).toEqual([
      400,
      `\`structured_outputs.json.multipleOf\` must be a number above 0, got -${BIG}`,
    ]);
  });

  test.each(['9'.repeat(20), '9'.repeat(400), '9'.repeat(3_000_000)])('are rejected as `seed`', async (seed) => {
    const response = await server.post('/v1/completions', `{"prompt": "", "seed": ${seed}}`);
    const given = seed.length > 80 ? `${seed.slice(0, 80)}...` : seed;
    expect([response.status, await messageOf(response)]).toEqual([
      400,
      `\`seed\` must be an integer in [-2^63, 2^63), got ${given}`,
    ]);
  });

  test('may be anywhere in a tool, and are in the prompt', async () => {
    const o = `{"type": "object", "default": {"seed": ${BIG}}}`;
    const tool = `{"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {"o": ${o}}}}}`;
    const call = `{"id": "1", "type": "function", "function": {"name": "f", "arguments": "{\\"id\\": ${BIG}1}"}}`;
    const messages = `[{"role": "user", "content": "A"}, {"role": "assistant", "tool_calls": [${call}]}]`;
    const body = `{"messages": ${messages}, "tools": [${tool}], "max_tokens": 5}`;
    expect((await server.post('/v1/chat/completions', body)).status).toBe(200);
    const text = tokenizer.decode(server.generator.requests.at(-1)?.prompt ?? []);
    expect(text).toContain(`"seed":${BIG}}`);
    expect(text).toContain(`"id":${BIG}1}`);
  });
});

describe('a compressed body', () => {
  const body = JSON.stringify({ prompt: 'a', max_tokens: 3 });
  const send = (encoding: string, bytes: Buffer<ArrayBuffer>) => {
    const headers = { 'content-type': 'application/json', 'content-encoding': encoding };
    return fetch(`${server.url}/v1/completions`, { method: 'POST', headers, body: bytes });
  };

  test.each([
    ['gzip', gzipSync(body)],
    ['deflate', deflateSync(body)],
    ['br', brotliCompressSync(body)],
    ['GZIP', gzipSync(body)],
  ])('is decompressed: %s', async (encoding, bytes) => {
    const response = await send(encoding, bytes);
    expect((await response.json()).choices[0].text).toBe('ok');
  });

  test('is rejected if its encoding is unknown or its bytes are damaged', async () => {
    const unknown = await send('zstd', Buffer.from(body));
    expect([unknown.status, await messageOf(unknown)]).toEqual([
      415,
      '`content-encoding` must be identity, gzip, deflate, br, got "zstd"',
    ]);
    const damaged = await send('gzip', Buffer.from(body));
    expect([damaged.status, await messageOf(damaged)]).toEqual([400, 'the request body is not valid gzip']);
  });

  test('may not exceed the limit when decompressed', async () => {
    const large = await send('gzip', gzipSync(Buffer.alloc(5 * 1024 * 1024, ' ')));
    expect(large.status).toBe(413);
  });
});

test('a path may end in a slash', async () => {
  const response = await server.post('/v1/completions/', '{"prompt": "a", "max_tokens": 3}');
  expect((await response.json()).choices[0].text).toBe('ok');
  expect((await fetch(`${server.url}/health`)).status).toBe(200);
});

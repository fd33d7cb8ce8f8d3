import { createHash } from 'node:crypto';
import { connect } from 'node:net';
import { text } from 'node:stream/consumers';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { ApiKeys } from '../../src/access/api-keys.ts';
import { startServer, type TestServer, tokenByToken } from '../testing/test-server.ts';

const keys = () =>
  new ApiKeys([{ name: 'ada', sha256: createHash('sha256').update('key').digest('hex'), requests_per_minute: 60 }]);
const ours = 'https://app.example.org';
const preflight = (origin: string): RequestInit => ({
  method: 'OPTIONS',
  headers: {
    origin,
    'access-control-request-method': 'POST',
    'access-control-request-headers': 'authorization, content-type',
  },
});

describe('with allowed origins', () => {
  let server: TestServer;
  beforeAll(async () => {
    server = await startServer({ corsOrigins: `${ours}, https://b.example.org` }, keys());
    server.generator.script = () => ({ steps: tokenByToken('let x') });
  });
  afterAll(() => server.close());

  test('preflight requests need no key', async () => {
    const response = await fetch(`${server.url}/v1/chat/completions`, preflight(ours));
    expect(response.status).toBe(204);
    expect(response.headers.get('access-control-allow-origin')).toBe(ours);
    expect(response.headers.get('access-control-allow-headers')).toBe('authorization, content-type');
    expect(response.headers.get('access-control-allow-methods')).toBe('GET, POST');
  });

  test('only allowed origins can read answers and errors', async () => {
    const send = (origin: string, headers: object) =>
      server.complete({ prompt: 'a' }, { headers: { 'content-type': 'application/json', origin, ...headers } });
    for (const [headers, status] of [
      [{ authorization: 'Bearer key' }, 200],
      [{}, 401],
    ] as const) {
      const response = await send(ours, headers);
      expect(response.status).toBe(status);
      expect(response.headers.get('access-control-allow-origin')).toBe(ours);
      expect(response.headers.get('access-control-expose-headers')).toContain('x-ratelimit-remaining-requests');
    }
    const other = await send('https://evil.example.org', { authorization: 'Bearer key' });
    expect(other.headers.get('access-control-allow-origin')).toBeNull();
  });

  test('streams have the headers too', async () => {
    const headers = { 'content-type': 'application/json', origin: ours, authorization: 'Bearer key' };
    const response = await server.complete({ prompt: 'a', stream: true }, { headers });
    expect(response.headers.get('access-control-allow-origin')).toBe(ours);
    await response.text();
  });
});

describe('without allowed origins', () => {
  let server: TestServer;
  beforeAll(async () => {
    server = await startServer();
  });
  afterAll(() => server.close());

  test('preflight requests get 405', async () => {
    const response = await fetch(`${server.url}/v1/chat/completions`, preflight(ours));
    expect(response.status).toBe(405);
    expect(response.headers.get('access-control-allow-origin')).toBeNull();
  });

  test.each([
    ['not HTTP', 'HELO example.org\r\n\r\n', 400, 'the request is not valid HTTP/1.1'],
    ['two lengths', 'POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab', 400, 'not valid'],
    [
      'a length with chunked encoding (request smuggling)',
      'POST /v1/completions HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\nGET / HTTP/1.1\r\n\r\n',
      400,
      'not valid',
    ],
    ['no Host', 'GET /healthz HTTP/1.1\r\nconnection: close\r\n\r\n', 400, 'no `Host` header'],
    [
      'no Host, with a body',
      'POST /v1/completions HTTP/1.1\r\ncontent-type: application/json\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}',
      400,
      'no `Host` header',
    ],
    [
      'an unknown expectation',
      'GET /healthz HTTP/1.1\r\nhost: a\r\nexpect: tea\r\n\r\n',
      417,
      '`expect` must be 100-continue or absent, got "tea"',
    ],
    [
      'a transfer encoding that proxies may read differently',
      'POST /v1/completions HTTP/1.1\r\nhost: a\r\nconnection: close\r\ntransfer-encoding: identity, chunked\r\n\r\n0\r\n\r\n',
      400,
      'must be chunked',
    ],
    ['a long header', `GET / HTTP/1.1\r\nhost: a\r\nx: ${'a'.repeat(20_000)}\r\n\r\n`, 431, 'larger than 16 KiB'],
  ])('%s gets an error in the usual form', async (_, request, status, message) => {
    const socket = connect(server.port, '127.0.0.1');
    socket.write(request);
    const answer = await text(socket);
    const [head = '', body = ''] = answer.split('\r\n\r\n');
    expect(head).toMatch(new RegExp(`^HTTP/1.1 ${status} `));
    expect(head).toMatch(/^x-request-id: req_\w+/m);
    expect(JSON.parse(body).error).toMatchObject({
      type: 'invalid_request_error',
      message: expect.stringContaining(message),
    });
    expect((await fetch(`${server.url}/healthz`)).status).toBe(200);
  });

  test('HTTP/1.0 needs no Host', async () => {
    const socket = connect(server.port, '127.0.0.1');
    socket.write('GET /healthz HTTP/1.0\r\n\r\n');
    expect(await text(socket)).toMatch(/^HTTP\/1.1 200 /);
  });
});

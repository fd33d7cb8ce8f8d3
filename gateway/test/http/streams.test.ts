import { once } from 'node:events';
import { connect } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { PtpError } from '@ptp/protocol/errors';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { startServer, type TestServer, tokenByToken, until } from '../testing/test-server.ts';

let server: TestServer;
beforeEach(async () => {
  server = await startServer({ maxStreams: 4, stallMillis: 200 });
  server.generator.script = () => ({ steps: [[5]], endless: true, delayMillis: 1 });
});
afterEach(() => server.close());

const slowly = () => ({ steps: [[5]], endless: true, delayMillis: 60_000 });
const long = { prompt: 'a', max_tokens: 500 };

describe('a client that disconnects', () => {
  test.each([
    ['mid-stream', true],
    ['while it waits for an answer that is not streamed', false],
  ])('%s ends its generation', async (_, stream) => {
    const leave = new AbortController();
    if (!stream) server.generator.script = slowly;
    const answer = server.complete({ ...long, stream }, { signal: leave.signal });
    answer.catch(() => {});
    if (stream) await (await answer).body?.getReader().read();
    await until(() => server.generator.running === 1);
    leave.abort();
    await until(() => server.generator.running === 0);
    expect(server.generator.aborted).toBe(1);
  });

  test('before the first text of a stream ends its generation', async () => {
    server.generator.script = slowly;
    const leave = new AbortController();
    server.complete({ ...long, stream: true, n: 2 }, { signal: leave.signal }).catch(() => {});
    await until(() => server.generator.running === 2);
    leave.abort();
    await until(() => server.generator.running === 0);
  });

  test('makes room for another', async () => {
    const leave = new AbortController();
    server.generator.script = slowly;
    server.complete({ ...long, n: 4 }, { signal: leave.signal }).catch(() => {});
    await until(() => server.generator.running === 4);
    expect((await server.complete({ prompt: 'a' })).status).toBe(429);
    leave.abort();
    await until(() => server.generator.running === 0);
    server.generator.script = () => ({ steps: tokenByToken('ok') });
    expect((await server.complete({ prompt: 'a', n: 4 })).status).toBe(200);
  });
});

test('a client that does not read slows the generator down, then is disconnected', async () => {
  // Long steps fill the buffers quickly.
  server.generator.script = () => ({ steps: [Array(50_000).fill(5)], endless: true });
  Object.assign(server.generator.model, { contextLength: 100_000_000 });
  const socket = connect(server.port, '127.0.0.1');
  socket.pause();
  const body = JSON.stringify({ prompt: 'a', stream: true, max_tokens: 99_000_000 });
  socket.write(
    `POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: ${body.length}\r\n\r\n${body}`,
  );
  await until(() => server.generator.running === 1);
  await until(() => server.generator.running === 0);
  expect(server.generator.aborted).toBe(1);
  socket.destroy();
}, 30_000);

test('sequences beyond the limit get 429 with a time to retry', async () => {
  server.generator.script = slowly;
  const leave = new AbortController();
  server.complete({ ...long, n: 3 }, { signal: leave.signal }).catch(() => {});
  await until(() => server.generator.running === 3);
  const response = await server.complete({ prompt: 'a', n: 2 });
  expect([response.status, response.headers.get('retry-after')]).toEqual([429, '1']);
  expect((await response.json()).error).toEqual({
    message: 'overloaded: 3 of 4 sequences are running',
    type: 'rate_limit_error',
    param: null,
    code: 'rate_limit_exceeded',
  });
  leave.abort();
});

describe('a stream without text', () => {
  test('sends its headers and comments until there is text', async () => {
    const own = await startServer({ keepAliveMillis: 20 });
    try {
      own.generator.script = () => ({ steps: tokenByToken('ok'), delayMillis: 100 });
      const response = await own.complete({ prompt: 'a', max_tokens: 50, stream: true });
      const body = await response.text();
      expect(body.startsWith(': keep-alive\n\n')).toBe(true);
      expect(body.match(/^: keep-alive$/gm)?.length).toBeGreaterThan(1);
      expect(
        body
          .split('\n\n')
          .filter((event) => event.startsWith('data: '))
          .at(-1),
      ).toBe('data: [DONE]');
    } finally {
      await own.close();
    }
  });

  test('reports an error in an event once its headers are sent', async () => {
    const own = await startServer({ keepAliveMillis: 20 });
    try {
      own.generator.script = () => ({ steps: [[]], delayMillis: 100, error: new PtpError('unavailable', 'lost') });
      const response = await own.complete({ prompt: 'a', max_tokens: 50, stream: true });
      expect(response.status).toBe(200);
      expect(await response.text()).toContain('"message":"lost"');
    } finally {
      await own.close();
    }
  });
});

describe('operations', () => {
  test('/healthz reports on the process', async () => {
    server.generator.verifier = false;
    expect((await fetch(`${server.url}/healthz`)).status).toBe(200);
  });

  test('/readyz reports on the verifier; the drafter is optional', async () => {
    server.generator.drafter = false;
    const ready = await fetch(`${server.url}/readyz`);
    expect([ready.status, await ready.json()]).toEqual([
      200,
      { ready: true, verifier: true, drafter: false, reasons: [] },
    ]);
    server.generator.verifier = false;
    const unready = await fetch(`${server.url}/readyz`);
    expect([unready.status, (await unready.json()).reasons]).toEqual([503, ['the verifier does not answer']]);
  });

  test('request ids are echoed if valid, else generated, for streams and errors too', async () => {
    const id = async (given: string | undefined, body: object = {}) => {
      server.generator.script = () => ({ steps: tokenByToken('ok') });
      const headers = { 'content-type': 'application/json', ...(given && { 'x-request-id': given }) };
      const response = await server.complete({ prompt: 'a', ...body }, { headers });
      await response.text();
      return response.headers.get('x-request-id');
    };
    expect(await id('abc-1.2:3')).toBe('abc-1.2:3');
    expect(await id('abc', { stream: true })).toBe('abc');
    expect(await id('abc', { n: 99 })).toBe('abc');
    expect(await id(undefined)).toMatch(/^req_\w{32}$/);
    expect(await id('in valid')).toMatch(/^req_\w{32}$/);
    expect(await id('x'.repeat(200))).toMatch(/^req_\w{32}$/);
  });

  test('logs describe requests and outcomes, never text', async () => {
    server.generator.script = () => ({ steps: tokenByToken('secret answer') });
    const headers = { 'content-type': 'application/json', 'x-request-id': 'find-me' };
    await (await server.complete({ prompt: 'secret prompt', stream: true }, { headers })).text();
    await (await server.complete({ prompt: 'a', stop: ['secret', ''] }, { headers })).text();
    await (await server.complete({ prompt: 'a', model: 'secret model' }, { headers })).text();
    await until(() => server.logs.filter((line) => line.includes('answered')).length === 3);
    const lines = server.logs.filter((line) => line.includes('find-me')).map((line) => JSON.parse(line));
    expect(lines).toContainEqual(
      expect.objectContaining({ msg: 'answered', method: 'POST', route: '/v1/completions', status: 200 }),
    );
    expect(lines).toContainEqual(expect.objectContaining({ msg: 'generated', stream: true }));
    expect(lines).toContainEqual(expect.objectContaining({ msg: 'rejected', status: 404, param: 'model' }));
    expect(server.logs.join('')).not.toContain('secret');
  });

  test('closing lets responses in progress finish', async () => {
    server.generator.script = () => ({ steps: [...tokenByToken('let x = 1;')], delayMillis: 20 });
    const response = await server.complete({ prompt: 'a', stream: true });
    const [text] = await Promise.all([response.text(), sleep(5).then(() => server.shutdown())]);
    expect(text).toContain('[DONE]');
  });

  test('a keep-alive connection serves several requests', async () => {
    server.generator.script = () => ({ steps: tokenByToken('ok') });
    const socket = connect(server.port, '127.0.0.1');
    const body = JSON.stringify({ prompt: 'a', stream: true });
    for (let i = 0; i < 3; i++) {
      socket.write(
        `POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: ${body.length}\r\n\r\n${body}`,
      );
      let answer = '';
      while (!answer.includes('[DONE]')) answer += String((await once(socket, 'data'))[0]);
      expect(answer).toContain('HTTP/1.1 200');
    }
    socket.destroy();
  });
});

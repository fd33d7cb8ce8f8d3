import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { serveGateway } from '../../test/served.ts';

let server: Awaited<ReturnType<typeof serveGateway>>;
beforeAll(async () => {
  server = await serveGateway(new URL('../../models/default', import.meta.url).pathname);
}, 60_000);
afterAll(() => server?.close());

const MAIN = new URL('../main.ts', import.meta.url).pathname;

async function ptp(words: string[], { input = '', url = `${server.url}v1` } = {}) {
  const child = spawn(process.execPath, [MAIN, ...words], {
    env: { ...process.env, PTP_URL: url, FORCE_COLOR: undefined, NO_COLOR: undefined },
  });
  let [out, err] = ['', ''];
  child.stdout.setEncoding('utf8').on('data', (text) => {
    out += text;
  });
  child.stderr.setEncoding('utf8').on('data', (text) => {
    err += text;
  });
  child.stdin.end(input);
  const [code] = await once(child, 'close');
  return { code, out, err };
}

describe('ptp', () => {
  test('models lists the ids of the models', async () => {
    expect(await ptp(['models'])).toMatchObject({ code: 0, out: `${server.id}\n` });
  });

  test('complete --compare gives the same text with and without the drafter', async () => {
    const words = ['complete', 'export interface User {', '--max-tokens', '30', '--seed', '5', '--json'];
    const { code, out } = await ptp([...words, '--compare']);
    expect(code).toBe(0);
    const done = JSON.parse(out);
    expect(done).toMatchObject({ identical: true, tokens: 30, plain: { tokens: 30, steps: 30 } });
    expect(done.steps).toBeLessThan(30);
    const plain = JSON.parse((await ptp([...words, '--no-draft'])).out);
    expect(plain).toMatchObject({ text: done.text, steps: 30 });
  });

  test('complete writes the text to standard output and a summary to standard error', async () => {
    const { out, err } = await ptp(['complete', '-', '--max-tokens', '12', '--seed', '1'], {
      input: 'export declare ',
    });
    expect(out.length).toBeGreaterThan(5);
    expect(out).not.toContain('\u001b');
    expect(err).toMatch(/^\n12 tokens, [\d.]+ per step, first after \d+ ms, then [\d.]+ ms per token\n$/);
  });

  test('chat answers line by line', async () => {
    const words = ['chat', '--max-tokens', '10', '--seed', '3'];
    const { code, out } = await ptp(words, { input: 'a class\nanother\n' });
    expect(code).toBe(0);
    expect(out.match(/10 tokens/g)).toHaveLength(2);
  });

  test('bench prints the speedup, and whether the texts are identical', async () => {
    const { code, out } = await ptp(['bench', '--repeats', '2', '--max-tokens', '20', '--json']);
    expect(code).toBe(0);
    expect(JSON.parse(out)).toMatchObject({ requests: 2, identical: true, speedup: expect.any(Number) });
  });

  test.each([
    [['nothing'], 2, "ptp: unknown command 'nothing'"],
    [['complete'], 2, "ptp: missing required argument 'prompt'"],
    [['complete', 'a', '--seed', 'x'], 2, 'ptp: --seed must be a number, got x'],
    [['complete', 'a', '--wrong'], 2, "ptp: unknown option '--wrong'"],
    [['bench', '--repeats', '0'], 2, 'ptp: --repeats must be an integer >= 1, got 0'],
    [['complete', 'a', '--temperature', '3'], 1, 'ptp: `temperature` must be in [0, 2], got 3'],
    [['complete', 'a', '--model', 'other'], 1, 'ptp: The model `other` does not exist'],
  ])('%j is an error', async (words, code, message) => {
    const answer = await ptp(words);
    expect(answer.code).toBe(code);
    expect(answer.err).toContain(message);
  });

  test('the error names a server that cannot be reached', async () => {
    const { code, err } = await ptp(['models'], { url: 'http://127.0.0.1:1/v1' });
    expect(code).toBe(1);
    expect(err).toContain('http://127.0.0.1:1/v1 cannot be reached');
    expect(err).toContain('start a server with npm start, or set --url');
  });

  test('the error for a path that does not exist says how the URL of an API ends', async () => {
    const { code, err } = await ptp(['models'], { url: server.url });
    expect([code, err]).toEqual([1, expect.stringContaining('the URL of an API usually ends in /v1')]);
  });

  test('--compare says that the texts are identical', async () => {
    const { err } = await ptp(['complete', 'export declare ', '--max-tokens', '12', '--seed', '1', '--compare']);
    expect(err).toMatch(/: speedup [\d.]+; the texts are identical\n$/);
  });

  test('a reader that closes the pipe early is no error', async () => {
    const command = `"${process.execPath}" "${MAIN}" complete a --max-tokens 200 | head -c 1`;
    const child = spawn('bash', ['-c', command], {
      env: { ...process.env, PTP_URL: `${server.url}v1` },
    });
    let err = '';
    child.stderr.setEncoding('utf8').on('data', (text) => {
      err += text;
    });
    await once(child, 'close');
    expect(err).not.toContain('EPIPE');
  });

  test('a chat forgets its oldest turns when the context is full, and on request', { timeout: 60_000 }, async () => {
    const words = (n: number) => 'word '.repeat(n);
    const input = ['/system Be terse.', words(200), words(200), words(200), '/clear', 'b'].join('\n');
    const { code, out } = await ptp(['chat', '--max-tokens', '8', '--seed', '3'], { input });
    expect(code).toBe(0);
    expect(out.match(/the oldest question and its answer are forgotten/g)?.length).toBeGreaterThan(0);
    const tooLong = await ptp(['chat', '--max-tokens', '10'], { input: words(9000) });
    expect(tooLong.code).toBe(1);
    expect(tooLong.out).toContain('maximum context length');
  });

  test('requests to other servers have no ptp fields', async () => {
    const bodies: Record<string, unknown>[] = [];
    const other = createServer(async (request, response) => {
      if (request.url === '/v1/models') return response.end(JSON.stringify({ data: [{ id: 'm', owned_by: 'them' }] }));
      let body = '';
      for await (const chunk of request) body += chunk;
      bodies.push(JSON.parse(body));
      for (const text of ['Hel', 'lo']) response.write(`data: ${JSON.stringify({ choices: [{ text }] })}\n\n`);
      return response.end('data: [DONE]\n\n');
    });
    await once(other.listen(0, '127.0.0.1'), 'listening');
    const { port } = other.address() as AddressInfo;
    const { out } = await ptp(['complete', 'Say'], { url: `http://127.0.0.1:${port}/v1` });
    other.close();
    expect(out).toBe('Hello');
    expect(bodies).toHaveLength(1);
    expect(bodies[0]).toMatchObject({ model: 'm', prompt: 'Say', stream: true });
    expect(bodies[0]).not.toHaveProperty('ptp');
  });
});

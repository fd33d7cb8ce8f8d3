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

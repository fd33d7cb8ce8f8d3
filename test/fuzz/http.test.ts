import { connect } from 'node:net';
import { setImmediate } from 'node:timers/promises';
import fc from 'fast-check';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { serveGateway } from '../served.ts';
import { type Rough, rough } from './http-bytes.ts';
import { type Shaped, shaped } from './http-requests.ts';
import { errorLog, fuzz, Unreachable } from './lanes.ts';

// Sends requests to the gateway's HTTP server, which uses the real services. `npm run fuzz` sends 50,000.

const RUNS = Number(process.env.PTP_FUZZ_RUNS ?? 400);
const tiny = new URL('../models/tiny', import.meta.url).pathname;

const errors = errorLog();
let server: Awaited<ReturnType<typeof serveGateway>>;
beforeAll(async () => {
  server = await serveGateway(tiny, { maxStreams: 64, logger: errors.logger });
});
afterAll(() => server.close());

/** Timeout in milliseconds, longer than any answer takes. */
const LONG = 60_000;
/** Duration of silence in milliseconds after which the client ends its side of the connection. */
const PATIENCE = 300;

/** Waits for the services if the status says that they cannot be reached. @throws Unreachable when they are ready again */
async function checkReachable(status: number): Promise<void> {
  if (status !== 503 && status !== 504) return;
  await server.pair.services.ready(LONG);
  throw new Unreachable(String(status));
}

/** Shape of every error. */
const refusal = { error: { message: expect.any(String), type: expect.any(String) } };

async function ask({ path, body, leaves }: Shaped): Promise<string> {
  const left = new AbortController();
  const response = await fetch(new URL(path, server.url), {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify(body),
    signal: AbortSignal.any([AbortSignal.timeout(LONG), left.signal]),
  });
  const { status } = response;
  await checkReachable(status);
  if (leaves) {
    left.abort();
    expect(status).toBeLessThan(500);
    return 'left';
  }
  const text = await response.text();
  expect(status, text + errors.lines).toBeLessThan(500);
  if (status !== 200) expect(JSON.parse(text)).toMatchObject(refusal);
  else if (response.headers.get('content-type')?.startsWith('text/event-stream')) await checkEvents(text);
  else expect(() => JSON.parse(text)).not.toThrow();
  return String(status);
}

/** Checks that a stream ends normally, or with an error in the request that was found late. */
async function checkEvents(text: string): Promise<void> {
  const last = /data: (.*)\n\n$/.exec(text)?.[1] ?? '';
  if (last === '[DONE]' || /event: response\.(completed|incomplete)\ndata: .*\n\n$/.test(text)) return;
  const { error, response } = JSON.parse(last);
  const { type = 'invalid_request_error', message } = error ?? { message: response.error.message };
  if (/verifier/.test(message)) await checkReachable(503);
  expect([type, message]).toEqual(['invalid_request_error', expect.not.stringMatching('internal error')]);
}

/** Sends bytes, and reads until the server closes the connection. */
async function send({ bytes, cut }: Rough): Promise<string> {
  const socket = connect(Number(new URL(server.url).port), '127.0.0.1');
  const answer: Buffer[] = [];
  const closed = new Promise<void>((resolve, reject) => {
    socket.setTimeout(PATIENCE, () => socket.end());
    const late = setTimeout(() => reject(new Error('no answer, and the connection stays open')), LONG);
    socket.on('data', (part) => answer.push(part)).on('error', () => {});
    socket.on('close', () => {
      clearTimeout(late);
      resolve();
    });
  });
  const at = Math.floor(cut * bytes.length);
  socket.write(bytes.subarray(0, at));
  await setImmediate();
  if (!socket.destroyed) socket.write(bytes.subarray(at));
  await closed.finally(() => socket.destroy());
  const text = Buffer.concat(answer).toString('latin1');
  const statuses = Array.from(text.matchAll(/^HTTP\/1\.1 (\d{3})/gm), ([, status]) => Number(status));
  for (const status of statuses) {
    await checkReachable(status);
    expect(status, text).toBeLessThan(500);
  }
  return `rough ${statuses.find((status) => status >= 200) ?? 'closed'}`;
}

/** Checks that the services hold no sequences, and that the server is still usable. */
async function atRest(): Promise<void> {
  const { target, draft } = server.pair;
  const open = () => [target, draft].map((engine) => engine.usage().sequences);
  await expect.poll(open, { timeout: 15_000 }).toEqual([0, 0]);
  expect(errors.lines).toEqual([]);
  expect(await ask({ path: '/v1/completions', body: { prompt: 'a', max_tokens: 2 }, leaves: false })).toBe('200');
}

test(
  `${RUNS} generated requests: each is answered, none with 5xx, and no sequence stays open`,
  async () => {
    const inputs: fc.Arbitrary<Shaped | Rough> = fc.oneof(
      { weight: 3, arbitrary: shaped },
      { weight: 1, arbitrary: rough },
    );
    const attempt = (input: Shaped | Rough) => ('bytes' in input ? send(input) : ask(input));
    const seen = await fuzz({ what: 'HTTP', count: RUNS, inputs, attempt, atRest });
    for (const outcome of ['200', '400', 'rough 200', 'rough 400'])
      expect(seen[outcome] ?? 0, outcome).toBeGreaterThan(RUNS / 100);
  },
  60_000 + RUNS * 200,
);

import { createHash } from 'node:crypto';
import { mkdtemp, rename, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { connect } from '@ptp/protocol/client';
import { GenerationService } from '@ptp/protocol/gen/ptp/v1/generation_pb';
import { serve } from '@ptp/protocol/server';
import { createLogger } from '@ptp/service-kit/log';
import { reload } from '@ptp/service-kit/reload';
import OpenAI from 'openai';
import { afterAll, beforeAll, beforeEach, describe, expect, test, vi } from 'vitest';
import { silent } from '../../../test/test-pair.ts';
import { Admission } from '../../src/access/admission.ts';
import { ApiKeys, Client, followApiKeys, loadApiKeys } from '../../src/access/api-keys.ts';
import { GrammarCache } from '../../src/grammar/cache.ts';
import { generationService } from '../../src/grpc.ts';
import { startServer, type TestServer, tokenByToken, tokenizer, until } from '../testing/test-server.ts';

const sha256 = (key: string) => createHash('sha256').update(key).digest('hex');
const keys = new ApiKeys([
  { name: 'ada', sha256: sha256('key of ada') },
  { name: 'ben', sha256: sha256('key of ben'), max_streams: 1 },
  { name: 'cyd', sha256: sha256('key of cyd'), requests_per_minute: 2 },
]);

let server: TestServer;
beforeAll(async () => {
  server = await startServer({}, keys);
});
afterAll(() => server.close());
beforeEach(() => {
  server.generator.script = () => ({ steps: tokenByToken('let x') });
});

const as = (key: string) => ({ headers: { 'content-type': 'application/json', authorization: `Bearer ${key}` } });
const send = (key: string, body: object = { prompt: 'a' }) => server.complete(body, as(key));

test("the server's limit applies per owner, after the key's own limit", async () => {
  const enter = vi.spyOn(server.admission, 'enter');
  const ben = keys.client('Bearer key of ben') as Client;
  await send('key of ben');
  expect(enter.mock.calls).toEqual([[1, ben]]);
  const leave = ben.admission.enter(1);
  expect((await send('key of ben')).status).toBe(429);
  expect(enter).toHaveBeenCalledTimes(1);
  leave();
  enter.mockRestore();
});

describe('a server with keys', () => {
  test('answers requests with a key, from the official client too', async () => {
    const client = new OpenAI({ baseURL: `${server.url}/v1`, apiKey: 'key of ada', maxRetries: 0 });
    const { choices } = await client.completions.create({ model: 'default', prompt: 'a' });
    expect(choices[0]?.text).toBe('let x');
    expect((await client.models.list()).data).toHaveLength(1);
  });

  test.each([
    ['none', {}, 'an API key is required: send `Authorization: Bearer KEY`'],
    ['another one', { authorization: 'Bearer key of eve' }, 'the API key is unknown'],
    ['another form', { authorization: 'Basic a2V5' }, 'an API key is required: send `Authorization: Bearer KEY`'],
  ])('rejects %s before it reads the body', async (_, headers, message) => {
    for (const path of ['/v1/completions', '/v1/chat/completions', '/v1/responses', '/tokenize', '/detokenize']) {
      const response = await server.post(path, 'no json', {
        headers: { 'content-type': 'application/json', ...headers },
      });
      expect(response.status).toBe(401);
      expect(response.headers.get('www-authenticate')).toBe('Bearer');
      const { error } = await response.json();
      expect(error).toEqual({ message, type: 'authentication_error', param: null, code: 'invalid_api_key' });
    }
    expect((await fetch(`${server.url}/v1/models`, { headers })).status).toBe(401);
  });

  test('requires none on public routes', async () => {
    for (const path of ['/', '/healthz', '/readyz', '/version', '/openapi.json']) {
      expect((await fetch(server.url + path)).status).toBe(200);
    }
  });

  test('logs names, never keys', async () => {
    server.logs.length = 0;
    await send('key of ada');
    await send('key of eve');
    expect(server.logs.join('')).toContain('"client":"ada"');
    expect(server.logs.join('')).not.toMatch(/key of|Bearer/);
  });

  test('limits the sequences of each key separately', async () => {
    server.generator.script = () => ({ steps: tokenByToken('let x'), endless: true, delayMillis: 2 });
    const stop = new AbortController();
    const first = send('key of ben', { prompt: 'a', max_tokens: 400, stream: true });
    await until(() => server.generator.running === 1);
    const second = await send('key of ben');
    expect(second.status).toBe(429);
    expect((await second.json()).error.message).toBe('overloaded: 1 of 1 sequences are running');
    expect((await send('key of ada', { prompt: 'a', max_tokens: 3 })).status).toBe(200);
    stop.abort();
    await (await first).body?.cancel();
    await until(() => server.generator.running === 0);
    expect((await send('key of ben', { prompt: 'a', max_tokens: 3 })).status).toBe(200);
  });

  test('limits the request rate and reports the remaining requests', async () => {
    const first = await send('key of cyd');
    expect(first.headers.get('x-ratelimit-limit-requests')).toBe('2');
    expect(first.headers.get('x-ratelimit-remaining-requests')).toBe('1');
    expect(Number.parseFloat(first.headers.get('x-ratelimit-reset-requests') ?? '')).toBeGreaterThan(25);
    await send('key of cyd');
    const third = await send('key of cyd');
    expect(third.status).toBe(429);
    // Two requests per minute are one every 30 s.
    expect(Number(third.headers.get('retry-after'))).toBeGreaterThan(25);
    expect(Number(third.headers.get('retry-after'))).toBeLessThanOrEqual(30);
    expect(third.headers.get('x-ratelimit-remaining-requests')).toBe('0');
    expect((await third.json()).error.message).toBe('this key is limited to 2 requests per minute');
    expect((await send('key of ada')).headers.has('x-ratelimit-limit-requests')).toBe(false);
  });
});

test('the rate limit refills over time', () => {
  const client = new Client({ name: 'cyd', sha256: sha256('x'), requests_per_minute: 2 });
  const taken = (now: number) => {
    client.take(now);
    return client.rate;
  };
  expect([taken(0)?.remaining, taken(0)?.remaining]).toEqual([1, 0]);
  expect(() => client.take(29_000)).toThrow(
    expect.objectContaining({ message: 'this key is limited to 2 requests per minute', retryAfterMs: 1000 }),
  );
  expect(taken(30_000)?.remaining).toBe(0);
  expect(taken(600_000)).toMatchObject({ limit: 2, remaining: 1, resetMillis: 30_000 });
});

test('gRPC requires the same keys', async () => {
  const { generator } = server;
  const grammars = new GrammarCache(tokenizer, generator.model);
  const service = generationService({ generator, tokenizer, grammars, admission: new Admission(8), keys });
  const grpc = await serve({ address: '127.0.0.1:0', logger: silent, services: [service] });
  const client = connect(GenerationService, grpc.address);
  const texts = async (metadata?: Record<string, string>) => {
    let text = '';
    const request = { prompt: { case: 'text', value: 'a' } as const };
    for await (const message of client.generate(request, metadata ? { metadata } : {})) text += message.text;
    return text;
  };
  try {
    expect(await texts({ authorization: 'Bearer key of ada' })).toBe('let x');
    await expect(texts()).rejects.toMatchObject({ code: 'unauthenticated' });
    await expect(client.tokenize({ text: 'a' })).rejects.toMatchObject({ code: 'unauthenticated' });
    await expect(client.getModel({})).rejects.toMatchObject({ code: 'unauthenticated' });
    await expect(texts({ authorization: 'Bearer no' })).rejects.toMatchObject({ code: 'unauthenticated' });
  } finally {
    client.close();
    await grpc.close(0);
  }
});

/** Returns the name of a key's client, or undefined if the key is unknown. */
function nameOf(keys: ApiKeys, key: string): string | undefined {
  try {
    return keys.client(`Bearer ${key}`)?.name;
  } catch {
    return undefined;
  }
}

describe('the keys file', () => {
  let folder: string;
  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 'ptp-keys-'));
  });
  afterAll(() => rm(folder, { recursive: true }));
  const load = async (content: unknown) => {
    const path = join(folder, 'keys.json');
    await writeFile(path, typeof content === 'string' ? content : JSON.stringify(content));
    return loadApiKeys(path, 'PTP_API_KEYS_FILE');
  };

  test('is loaded', async () => {
    const loaded = await load([{ name: 'ada', sha256: sha256('k'), max_streams: 2 }]);
    expect(loaded.client('Bearer k')?.name).toBe('ada');
    expect((await loadApiKeys('', 'PTP_API_KEYS_FILE')).client(undefined)).toBeUndefined();
  });

  test.each([
    ['[', 'the file is not JSON'],
    [[], 'the file'],
    [[{ name: 'ada', sha256: 'my key' }], '0.sha256: must be 64 lower-case hex digits'],
    [[{ name: 'ada', sha256: sha256('k'), limit: 3 }], 'Unrecognized key: "limit"'],
  ])('is rejected: %j', async (content, message) => {
    await expect(load(content)).rejects.toMatchObject({
      code: 'failed_precondition',
      message: expect.stringContaining(message),
    });
  });

  test('is read again when it changes, and a broken one changes nothing', async () => {
    const ada = { name: 'ada', sha256: sha256('k'), max_streams: 2 };
    const path = join(folder, 'keys.json');
    const keys = await load([ada]);
    const [client, errors]: [unknown, string[]] = [keys.client('Bearer k'), []];
    const logger = createLogger('gateway', { PTP_LOG_LEVEL: 'error' }, { write: (line) => void errors.push(line) });
    // Half of a file is broken too, so the whole file appears at once.
    const replace = async (text: string) => {
      await writeFile(`${path}.new`, text);
      await rename(`${path}.new`, path);
    };
    const stop = followApiKeys(keys, { path, setting: 'PTP_API_KEYS_FILE', logger, intervalMs: 20 });
    try {
      await replace(JSON.stringify([ada, { name: 'bob', sha256: sha256('new') }]));
      await expect.poll(() => nameOf(keys, 'new')).toBe('bob');
      // A client that is still in the file keeps its limits.
      expect(keys.client('Bearer k')).toBe(client);
      await replace('[{');
      await expect.poll(() => errors).toHaveLength(1);
      expect(nameOf(keys, 'new')).toBe('bob');
      await replace(JSON.stringify([ada]));
      await expect.poll(() => nameOf(keys, 'new')).toBeUndefined();
      expect(nameOf(keys, 'k')).toBe('ada');
    } finally {
      stop();
    }
    // The process then has no files to read again, so that SIGHUP ends it.
    expect(reload()).toBe(false);
  });

  test('must exist', async () => {
    await expect(loadApiKeys(join(folder, 'none'), 'PTP_API_KEYS_FILE')).rejects.toThrow('cannot be read (ENOENT)');
  });
});

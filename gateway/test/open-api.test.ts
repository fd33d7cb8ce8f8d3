import { Validator } from '@seriousme/openapi-schema-validator';
import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { openApi } from '../src/api/open-api.ts';
import { startServer, type TestServer, tokenByToken } from './test-server.ts';

interface Operation {
  readonly requestBody?: { readonly content: { readonly 'application/json': { readonly schema: Schema } } };
}
interface Schema {
  readonly properties: Readonly<Record<string, unknown>>;
}
const { paths } = openApi() as { paths: Record<string, { get?: Operation; post?: Operation }> };

let server: TestServer;
beforeAll(async () => {
  server = await startServer();
  server.generator.script = () => ({ steps: tokenByToken('let x = 1;') });
});
afterAll(() => server.close());

describe('the OpenAPI document', () => {
  test('is valid', async () => {
    const response = await fetch(`${server.url}/openapi.json`);
    const { valid, errors } = await new Validator().validate((await response.json()) as Record<string, unknown>);
    expect(errors ?? []).toEqual([]);
    expect(valid).toBe(true);
  });

  test.each(Object.entries(paths))('has what the server has: %s', async (path, operations) => {
    const url = server.url + path.replace('{id}', 'default');
    const method = operations.get ? 'GET' : 'POST';
    const body = method === 'POST' && { body: '"none"', headers: { 'content-type': 'application/json' } };
    const response = await fetch(url, { method, ...body });
    expect(response.status).toBe(method === 'GET' ? 200 : 400);
    expect((await fetch(url, { method: 'DELETE' })).status).toBe(405);
  });

  test('tells fields with their limits', () => {
    const properties = paths['/v1/completions']?.post?.requestBody?.content['application/json'].schema.properties ?? {};
    expect(JSON.stringify(properties.n)).toContain('"maximum":8');
    for (const field of ['prompt', 'temperature', 'logit_bias', 'ptp', 'stop'])
      expect(properties).toHaveProperty(field);
  });
});

/** How many requests are made up; `npm run fuzz` makes 5,000. */
const RUNS = Number(process.env.PTP_FUZZ_RUNS ?? 400);

/** A plausible value as often as any value at all. */
const value = fc.oneof(
  fc.jsonValue({ maxDepth: 2 }),
  fc.integer({ min: -2, max: 40 }),
  fc.double({ min: -3, max: 3, noNaN: true }),
  fc.constantFrom(true, false, null, 'a', 'let x', '', [], {}, [1, 2, 3], ['a', 'b'], { type: 'text' }, { '5': 1.5 }),
  fc.constantFrom([{ role: 'user', content: 'hi' }], [{ role: 'assistant' }], { draft: false }, { trace: true }),
);
const posts = Object.entries(paths).flatMap(([path, { post }]) => {
  const schema = post?.requestBody?.content['application/json'].schema;
  return schema ? [{ path, fields: Object.keys(schema.properties).filter((field) => field !== 'model') }] : [];
});
/** What makes most requests pass, so that the other fields are looked at. */
const fine: Readonly<Record<string, object>> = {
  '/v1/completions': { prompt: 'a', max_tokens: 20 },
  '/v1/chat/completions': { messages: [{ role: 'user', content: 'hi' }], max_tokens: 20 },
  '/v1/responses': { input: 'hi', max_output_tokens: 20 },
  '/tokenize': { prompt: 'a' },
  '/detokenize': { tokens: [1, 2] },
};
const request = fc
  .constantFrom(...posts)
  .chain(({ path, fields }) =>
    fc.record({ path: fc.constant(path), more: fc.dictionary(fc.constantFrom(...fields), value, { maxKeys: 4 }) }),
  );

test(`${RUNS} made up requests: each is answered, none by 5xx`, async () => {
  const seen = { passed: 0, refused: 0 };
  await fc.assert(
    fc.asyncProperty(request, async ({ path, more }) => {
      const response = await server.post(path, { model: 'default', ...fine[path], ...more });
      const text = await response.text();
      expect(response.status, text).toBeLessThan(500);
      if (response.status === 200) {
        seen.passed++;
        if (response.headers.get('content-type')?.startsWith('text/event-stream')) {
          expect(text).toMatch(/data: \[DONE\]\n\n$|event: response\.(completed|incomplete)\ndata: .*\n\n$/);
        } else expect(() => JSON.parse(text)).not.toThrow();
      } else {
        seen.refused++;
        const { error } = JSON.parse(text);
        expect(error).toMatchObject({ message: expect.any(String), type: expect.any(String) });
      }
    }),
    { numRuns: RUNS, seed: Number(process.env.PTP_FUZZ_SEED ?? 1) },
  );
  expect(seen.passed).toBeGreaterThan(RUNS / 10);
  expect(seen.refused).toBeGreaterThan(RUNS / 10);
  expect(server.generator.running).toBe(0);
  expect(server.logs.filter((line) => JSON.parse(line).level >= 50)).toEqual([]);
}, 600_000);

import { Validator } from '@seriousme/openapi-schema-validator';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { openApi } from '../../src/openai/openapi.ts';
import { startServer, type TestServer } from '../testing/test-server.ts';

interface Operation {
  readonly tags: readonly string[];
  readonly requestBody?: { readonly content: { readonly 'application/json': Content } };
}
interface Content {
  readonly schema: Schema;
  readonly example: object;
}
interface Schema {
  readonly properties: Readonly<Record<string, unknown>>;
}
const { paths, tags } = openApi() as {
  paths: Record<string, { get?: Operation; post?: Operation }>;
  tags: { name: string }[];
};

let server: TestServer;
beforeAll(async () => {
  server = await startServer();
});
afterAll(() => server.close());

describe('the OpenAPI document', () => {
  test('is valid', async () => {
    const response = await fetch(`${server.url}/openapi.json`);
    const { valid, errors } = await new Validator().validate((await response.json()) as Record<string, unknown>);
    expect(errors ?? []).toEqual([]);
    expect(valid).toBe(true);
  });

  test.each(Object.entries(paths))('matches the server: %s', async (path, operations) => {
    const url = server.url + path.replace('{id}', 'default');
    const method = operations.get ? 'GET' : 'POST';
    const body = method === 'POST' && { body: '"none"', headers: { 'content-type': 'application/json' } };
    const response = await fetch(url, { method, ...body });
    expect(response.status).toBe(method === 'GET' ? 200 : 400);
    expect((await fetch(url, { method: 'DELETE' })).status).toBe(405);
  });

  test.each(Object.entries(paths))('has a group and an accepted example: %s', async (path, { get, post }) => {
    const [tag] = (get ?? post)?.tags ?? [];
    expect(tags.map(({ name }) => name)).toContain(tag);
    if (!post) return;
    const response = await server.post(path, post.requestBody?.content['application/json'].example);
    expect([response.status, await response.text()]).toEqual([200, expect.stringContaining('{')]);
  });

  test('contains the limits of fields', () => {
    const properties = paths['/v1/completions']?.post?.requestBody?.content['application/json'].schema.properties ?? {};
    expect(JSON.stringify(properties.n)).toContain('"maximum":128');
    for (const field of ['prompt', 'temperature', 'logit_bias', 'ptp', 'stop'])
      expect(properties).toHaveProperty(field);
  });
});

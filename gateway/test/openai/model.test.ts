import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { events, startServer, type TestServer, tokenByToken } from '../testing/test-server.ts';

let server: TestServer;
beforeAll(async () => {
  server = await startServer({ model: { engine: 'llama-cpp', quantization: 'Q4_K_M', candidateLimit: 1024 } });
});
afterAll(() => server.close());

test('the description of the model says how it runs', async () => {
  const { data } = await (await fetch(`${server.url}/v1/models`)).json();
  const ptp = { engine: 'llama-cpp', quantization: 'Q4_K_M', batch_invariant: null, candidate_limit: 1024 };
  expect(data).toMatchObject([{ id: 'test-model', object: 'model', owned_by: 'ptp', max_model_len: 512, ptp }]);
});

test('the description says what the verifier reports instead of the manifest', async () => {
  const reported = { engine: 'torch', quantization: 'fp8', device: 'cuda' };
  server.generator.target = { ...reported, candidateLimit: 2048, batchInvariant: true };
  const { data } = await (await fetch(`${server.url}/v1/models`)).json();
  const answers = { batch_invariant: true, candidate_limit: 2048, drafter: true, chat_template: false };
  expect(data[0].ptp).toEqual({ ...reported, ...answers });
  server.generator.script = () => ({ steps: tokenByToken('declare x'), truncatedFrom: 1 });
  const answer = await (await server.post('/v1/completions', { prompt: 'a', max_tokens: 16 })).json();
  expect(answer.warning).toContain('from only the 2048 most probable tokens');
  server.generator.target = {};
});

describe('a text sampled from the most probable tokens only', () => {
  const warning = expect.stringContaining('from only the 1024 most probable tokens');
  const endpoints: Record<string, object> = {
    '/v1/completions': { prompt: 'a', max_tokens: 16 },
    '/v1/chat/completions': { messages: [{ role: 'user', content: 'a' }] },
    '/v1/responses': { input: 'a' },
  };

  test.each(Object.entries(endpoints))('%s: has a warning', async (path, body) => {
    server.generator.script = () => ({ steps: tokenByToken('declare x'), truncatedFrom: 1 });
    expect(await (await server.post(path, body)).json()).toMatchObject({ warning });
    server.generator.script = () => ({ steps: tokenByToken('declare x') });
    expect(await (await server.post(path, body)).json()).not.toHaveProperty('warning');
  });

  test.each(['/v1/completions', '/v1/chat/completions'])('%s: a stream has it once', async (path) => {
    const chunks = async (truncatedFrom: number) => {
      server.generator.script = () => ({ steps: tokenByToken('declare const x'), truncatedFrom });
      const data = await events(await server.post(path, { ...endpoints[path], stream: true }));
      return data.slice(0, -1).map((event) => JSON.parse(event));
    };
    const fromTheFirst = await chunks(0);
    expect(fromTheFirst[0]).toMatchObject({ warning });
    expect(fromTheFirst.filter((chunk) => 'warning' in chunk)).toHaveLength(1);
    const later = await chunks(2);
    expect(later[0]).not.toHaveProperty('warning');
    expect(later.filter((chunk) => 'warning' in chunk)).toHaveLength(1);
  });

  test('/v1/responses: a stream has it in its responses', async () => {
    server.generator.script = () => ({ steps: tokenByToken('declare x'), truncatedFrom: 0 });
    const text = await (await server.post('/v1/responses', { input: 'a', stream: true })).text();
    const data = text.split('\n').filter((line) => line.startsWith('data: '));
    const responses = data.map((line) => JSON.parse(line.slice('data: '.length)).response).filter(Boolean);
    expect(responses.length).toBeGreaterThanOrEqual(3);
    for (const response of responses) expect(response).toMatchObject({ warning });
  });
});

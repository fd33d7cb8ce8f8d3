import { afterEach, describe, expect, test } from 'vitest';
import { TraceStore } from '../../src/observe/trace-store.ts';
import { startServer, type TestServer, tokenByToken } from '../testing/test-server.ts';

let server: TestServer | undefined;
afterEach(async () => {
  await server?.close();
  server = undefined;
});

describe('/traces', () => {
  test('names the setting if traces are off', async () => {
    server = await startServer();
    for (const path of ['/traces.json', '/traces/1.json']) {
      const response = await fetch(server.url + path);
      expect(response.status).toBe(404);
      const { error } = (await response.json()) as { error: { message: string } };
      expect(error.message).toBe('traces are off: start the gateway with `PTP_TRACES_KEPT` above 0');
    }
    const page = await fetch(`${server.url}/traces`);
    expect(page.status).toBe(200);
    expect(page.headers.get('content-security-policy')).toContain("default-src 'none'");
  });

  test('lists requests with their id, operation and trace', async () => {
    server = await startServer({}, undefined, new TraceStore(10));
    server.generator.script = () => ({ steps: tokenByToken('let x'), reusedTokens: 2 });
    const traceparent = '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01';
    const headers = { 'content-type': 'application/json', 'x-request-id': 'mine', traceparent };
    await (await server.complete({ prompt: 'secret words', temperature: 0.5, seed: 3 }, { headers })).text();
    await (await server.chat({ messages: [{ role: 'user', content: 'secret words' }], stream: true })).text();
    const text = await (await fetch(`${server.url}/traces.json`)).text();
    expect(text).not.toContain('secret');
    const { traces } = JSON.parse(text);
    expect(traces.map((t: { operation: string }) => t.operation)).toEqual(['chat', 'text_completion']);
    expect(traces[1]).toMatchObject({
      request_id: 'mine',
      trace_id: traceparent.split('-')[1],
      model: 'test-model',
      seed: '3',
      sampling: { temperature: 0.5 },
      cached_tokens: 2,
      finish: 'stop',
      error: null,
    });
    const detail = await (await fetch(`${server.url}/traces/${traces[1].id}.json`)).json();
    expect(detail).toMatchObject({ id: traces[1].id, steps: traces[1].steps, steps_left_out: 0 });
    const perfetto = await fetch(`${server.url}/traces/${traces[1].id}.perfetto.json`);
    expect(perfetto.headers.get('content-disposition')).toMatch(/perfetto\.json/);
    expect((await perfetto.json()).traceEvents.length).toBeGreaterThan(4);
  });

  test.each(['99.json', 'x.json', '1', '1.perfetto', '%2e%2e.json'])('has no %s', async (name) => {
    server = await startServer({}, undefined, new TraceStore(10));
    expect((await fetch(`${server.url}/traces/${name}`)).status).toBe(404);
  });
});

import { execFileSync } from 'node:child_process';
import { once } from 'node:events';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { promisify } from 'node:util';
import { Server, ServerCredentials } from '@grpc/grpc-js';
import { SpanKind, SpanStatusCode } from '@opentelemetry/api';
import { PtpError } from '@ptp/protocol/errors';
import { afterEach, describe, expect, test, vi } from 'vitest';
import { attribute, contextFrom, endSpan, newTrace, recordSpan, span, traceparentOf, untraced } from '../src/spans.ts';
import { DEFAULT_RATIO, startTracing, type Tracing } from '../src/tracing.ts';
import { memoryTracing } from './span-tree.ts';

let tracing: Pick<Tracing, 'stop'> | undefined;
afterEach(async () => {
  await tracing?.stop();
  tracing = undefined;
  vi.unstubAllEnvs();
});

/** Starts tracing into memory. @returns a function that returns the finished spans */
async function inMemory() {
  const memory = await memoryTracing();
  tracing = memory;
  return () => memory.finished();
}

const milliseconds = ([seconds, nanos]: [number, number]) => seconds * 1e3 + nanos / 1e6;

describe('spans', () => {
  test('of two services form one trace', async () => {
    const recorded = await inMemory();
    const request = span('chat default', {
      kind: SpanKind.SERVER,
      attributes: { [attribute.requestModel]: 'default' },
    });
    const step = span('verify', { parent: contextFrom(traceparentOf(request)), attributes: { [attribute.step]: 3 } });
    endSpan(step, { attributes: { [attribute.accepted]: 2 } });
    endSpan(request);
    const [second, first] = await recorded();
    expect(first).toMatchObject({
      name: 'chat default',
      kind: SpanKind.SERVER,
      attributes: { 'gen_ai.request.model': 'default' },
    });
    expect(second).toMatchObject({ name: 'verify', attributes: { 'ptp.step': 3, 'ptp.accepted': 2 } });
    expect(second?.parentSpanContext?.spanId).toBe(first?.spanContext().spanId);
    expect(second?.spanContext().traceId).toBe(first?.spanContext().traceId);
    expect(first?.resource.attributes).toMatchObject({ 'service.name': 'ptp-test', 'service.namespace': 'ptp' });
  });

  test('of past events keep their times', async () => {
    const recorded = await inMemory();
    const now = performance.now();
    const parent = span('step', { startTime: now - 8 });
    recordSpan('run', { parent, startTime: now - 7.5, endTime: now - 2.25, attributes: { [attribute.batchSize]: 4 } });
    endSpan(parent, { endTime: now });
    const [run, step] = await recorded();
    expect(milliseconds(run?.duration ?? [0, 0])).toBeCloseTo(5.25, 2);
    expect(milliseconds(step?.duration ?? [0, 0])).toBeCloseTo(8, 2);
    expect(milliseconds(run?.startTime ?? [0, 0]) - milliseconds(step?.startTime ?? [0, 0])).toBeCloseTo(0.5, 2);
    expect(Math.abs(milliseconds(step?.endTime ?? [0, 0]) - Date.now())).toBeLessThan(1_000);
  });

  test('of a failure carry its code but not its message', async () => {
    const recorded = await inMemory();
    endSpan(span('a'), { error: new TypeError('secret') });
    endSpan(span('b'), { error: new PtpError('cancelled', 'gone') });
    const [failed, cancelled] = await recorded();
    expect(failed).toMatchObject({ attributes: { 'error.type': 'internal' }, status: { code: SpanStatusCode.ERROR } });
    expect(cancelled).toMatchObject({
      attributes: { 'error.type': 'cancelled' },
      status: { code: SpanStatusCode.UNSET },
    });
    expect(JSON.stringify([failed?.status, failed?.events])).not.toContain('secret');
  });

  test('and their children are not recorded unless the request is sampled', async () => {
    const recorded = await inMemory();
    for (const traceparent of [undefined, '', 'nonsense', `00-${'1'.repeat(32)}-${'2'.repeat(16)}-00`]) {
      const step = span('step', { parent: contextFrom(traceparent) });
      expect(traceparentOf(step)).toBe('');
      recordSpan('run', { parent: step, startTime: 1, endTime: 2 });
      endSpan(step);
    }
    expect(await recorded()).toEqual([]);
  });

  test('are one shared object when tracing is off', () => {
    const off = span('off');
    expect(off).toBe(span('off again'));
    expect(traceparentOf(off)).toBe('');
    recordSpan('past', { startTime: 1, endTime: 2 });
    endSpan(off);
  });
});

describe('sampling', () => {
  test.each([
    ['parentbased_always_off', undefined, [true, true, false]],
    ['always_on', undefined, [true, true, true]],
    ['always_off', undefined, [false, false, false]],
    ['traceidratio', '0.5', [true, false, true]],
  ])('of requests with a traceparent by %s %s: %j', async (sampler, ratio, expected) => {
    vi.stubEnv('OTEL_TRACES_SAMPLER', sampler);
    vi.stubEnv('OTEL_TRACES_SAMPLER_ARG', ratio);
    const recorded = await inMemory();
    const traces = ['1', 'f', '2'].map((digit) => digit + '0'.repeat(31));
    const [, , unsampled] = traces;
    for (const trace of traces) {
      const flags = trace === unsampled ? '00' : '01';
      const run = span('run', { parent: contextFrom(`00-${trace}-${'a'.repeat(16)}-${flags}`) });
      recordSpan('queue', { parent: run, startTime: 1, endTime: 2 });
      endSpan(run);
    }
    const ids = (await recorded()).map((one) => one.spanContext().traceId);
    expect(traces.map((trace) => ids.filter((id) => id === trace).length)).toEqual(
      expected.map((all) => (all ? 2 : 0)),
    );
  });
});

test('by default 1 % of new traces is sampled, and a caller keeps its decision', async () => {
  vi.stubEnv('OTEL_TRACES_SAMPLER', '');
  const recorded = await inMemory();
  for (let i = 0; i < 5000; i++) endSpan(span('request'));
  const sampled = (await recorded()).length;
  expect(sampled).toBeGreaterThan((5000 * DEFAULT_RATIO) / 3);
  expect(sampled).toBeLessThan(5000 * DEFAULT_RATIO * 3);
  const parent = contextFrom(`00-${'f'.repeat(32)}-${'a'.repeat(16)}-01`, newTrace);
  endSpan(span('called', { parent }));
  expect((await recorded()).at(-1)?.name).toBe('called');
});

test('OTEL_TRACES_SAMPLER_ARG changes the share without OTEL_TRACES_SAMPLER', async () => {
  vi.stubEnv('OTEL_TRACES_SAMPLER', '');
  vi.stubEnv('OTEL_TRACES_SAMPLER_ARG', '1');
  const recorded = await inMemory();
  for (let i = 0; i < 10; i++) endSpan(span('request'));
  expect(await recorded()).toHaveLength(10);
});

describe('contextFrom', () => {
  const ids = `${'a'.repeat(32)}-${'b'.repeat(16)}`;

  test('accepts exactly the headers that W3C Trace Context allows', async () => {
    await inMemory();
    for (const good of [`00-${ids}-01`, `00-${ids}-03`, `cc-${ids}-01`, `cc-${ids}-01-more`]) {
      expect(traceparentOf(span('child', { parent: contextFrom(good) })).slice(3, 35)).toBe('a'.repeat(32));
    }
    const bad = [
      `ff-${ids}-01`,
      `00-${ids}-01-more`,
      `00-${ids}-1`,
      `00-${ids.toUpperCase()}-01`,
      `00-${'0'.repeat(32)}-${'b'.repeat(16)}-01`,
    ];
    for (const traceparent of bad) {
      expect(contextFrom(traceparent)).toBe(untraced);
      expect(contextFrom(traceparent, newTrace)).toBe(newTrace);
    }
  });
});

describe('startTracing', () => {
  test.each([
    [{}, false],
    [{ OTEL_TRACES_EXPORTER: 'none', OTEL_EXPORTER_OTLP_ENDPOINT: 'http://127.0.0.1:1' }, false],
    [{ OTEL_EXPORTER_OTLP_ENDPOINT: 'http://127.0.0.1:1', OTEL_SDK_DISABLED: 'true' }, false],
    [{ OTEL_TRACES_EXPORTER: 'console' }, true],
    [{ OTEL_EXPORTER_OTLP_TRACES_ENDPOINT: 'http://127.0.0.1:1/v1/traces' }, true],
    [{ OTEL_EXPORTER_OTLP_ENDPOINT: 'http://127.0.0.1:1', OTEL_EXPORTER_OTLP_PROTOCOL: 'grpc' }, true],
  ])('%o: %s', async (env, enabled) => {
    for (const [name, value] of Object.entries(env)) vi.stubEnv(name, value);
    const started = await startTracing('ptp-test');
    tracing = started;
    expect(started.enabled).toBe(enabled);
  });

  test('sends spans to a collector by OTLP over HTTP when it stops', async () => {
    const posts: { url?: string; type?: string; body: string }[] = [];
    const collector = createServer(async (request, response) => {
      const chunks: Buffer[] = [];
      for await (const chunk of request) chunks.push(chunk);
      const { url = '', headers } = request;
      posts.push({ url, type: headers['content-type'] ?? '', body: Buffer.concat(chunks).toString('latin1') });
      response.end();
    }).listen(0, '127.0.0.1');
    await once(collector, 'listening');
    vi.stubEnv('OTEL_EXPORTER_OTLP_ENDPOINT', `http://127.0.0.1:${(collector.address() as AddressInfo).port}`);
    vi.stubEnv('OTEL_TRACES_SAMPLER', 'always_on');
    vi.stubEnv('OTEL_SERVICE_NAME', 'renamed');
    tracing = await startTracing('ptp-test');
    endSpan(span('verify'));
    await tracing.stop();
    collector.close();
    expect(posts).toEqual([
      { url: '/v1/traces', type: 'application/x-protobuf', body: expect.stringMatching(/renamed[\s\S]*verify/) },
    ]);
  });

  test('sends spans to a collector by OTLP over gRPC', async () => {
    const bodies: string[] = [];
    const raw = (bytes: Buffer) => bytes;
    const server = new Server();
    const method = {
      path: '/opentelemetry.proto.collector.trace.v1.TraceService/Export',
      requestStream: false,
      responseStream: false,
      requestSerialize: raw,
      requestDeserialize: raw,
      responseSerialize: raw,
      responseDeserialize: raw,
    } as const;
    server.addService(
      { export: method },
      {
        export: ({ request }: { request: Buffer }, reply: (error: null, answer: Buffer) => void) => {
          bodies.push(request.toString('latin1'));
          reply(null, Buffer.alloc(0));
        },
      },
    );
    const port = await promisify(server.bindAsync.bind(server))('127.0.0.1:0', ServerCredentials.createInsecure());
    vi.stubEnv('OTEL_EXPORTER_OTLP_ENDPOINT', `http://127.0.0.1:${port}`);
    vi.stubEnv('OTEL_EXPORTER_OTLP_PROTOCOL', 'grpc');
    vi.stubEnv('OTEL_TRACES_SAMPLER', 'always_on');
    tracing = await startTracing('ptp-test');
    endSpan(span('verify'));
    await tracing.stop();
    server.forceShutdown();
    expect(bodies).toEqual([expect.stringMatching(/ptp-test[\s\S]*verify/)]);
  });

  test('does not load the SDK unless an exporter is set', () => {
    const source = new URL('../src/tracing.ts', import.meta.url);
    const script = `
      import { registerHooks } from 'node:module';
      const loaded = [];
      registerHooks({ resolve(name, context, next) { const found = next(name, context); loaded.push(found.url); return found; } });
      const { startTracing } = await import(${JSON.stringify(source.href)});
      await startTracing('test');
      console.log(loaded.filter((url) => /opentelemetry.(sdk|resources|exporter)/.test(url)).length);`;
    const run = (env: object) =>
      Number(
        execFileSync(process.execPath, ['--input-type=module', '-e', script], { env: { ...process.env, ...env } }),
      );
    expect(run({})).toBe(0);
    expect(run({ OTEL_TRACES_EXPORTER: 'console' })).toBeGreaterThan(0);
  });
});

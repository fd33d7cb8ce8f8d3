import { once } from 'node:events';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { promisify } from 'node:util';
import { Server, ServerCredentials } from '@grpc/grpc-js';
import { InMemorySpanExporter, SimpleSpanProcessor } from '@opentelemetry/sdk-trace';
import { PtpError } from '@ptp/protocol/errors';
import { afterEach, describe, expect, test, vi } from 'vitest';
import { contextFrom, endSpan, newTrace, recordSpan, span, traceparentOf } from '../src/spans.ts';
import { tailOptions } from '../src/tail-options.ts';
import { startTracing, type Tracing } from '../src/tracing.ts';

let tracing: Tracing | undefined;
afterEach(async () => {
  await tracing?.stop();
  tracing = undefined;
  vi.unstubAllEnvs();
});

/** Tracing with the tail rule over a sampler that chooses the given share. */
async function start(ratio: number, slowMillis = 50) {
  vi.stubEnv('OTEL_TRACES_SAMPLER', 'parentbased_traceidratio');
  vi.stubEnv('OTEL_TRACES_SAMPLER_ARG', String(ratio));
  const exporter = new InMemorySpanExporter();
  const processor = new SimpleSpanProcessor({ exporter });
  tracing = await startTracing('ptp-test', [processor], slowMillis);
  return async () => {
    await processor.forceFlush();
    return exporter.getFinishedSpans();
  };
}

/** A request with a step, of a length and an end. */
function request(name: string, millis: number, error?: unknown, traceparent?: string): string {
  const startTime = performance.now() - millis;
  const root = span(name, { startTime, parent: contextFrom(traceparent, newTrace) });
  const wire = traceparentOf(root);
  recordSpan(`${name} step`, { parent: root, startTime, endTime: startTime + millis / 2 });
  endSpan(root, { ...(error !== undefined && { error }), endTime: startTime + millis });
  return wire;
}

describe('tail sampling', () => {
  test('exports slow and failed requests with their steps, of those that the sampler left out', async () => {
    const exported = await start(0);
    expect(request('fast', 1)).toBe('');
    request('slow', 80);
    request('failed', 1, new PtpError('unavailable', 'gone'));
    request('cancelled', 1, new PtpError('cancelled', 'left'));
    const spans = await exported();
    expect(spans.map(({ name }) => name)).toEqual(['slow step', 'slow', 'failed step', 'failed']);
    expect(spans.map(({ attributes }) => attributes['ptp.sampled.as'])).toEqual([
      undefined,
      'slow',
      undefined,
      'failed',
    ]);
    for (const span of spans) expect(span.spanContext().traceFlags).toBe(1);
    const [step, root] = spans;
    expect(step?.parentSpanContext?.spanId).toBe(root?.spanContext().spanId);
    expect(root?.duration).toEqual([0, expect.any(Number)]);
  });

  test('of several processors each gets all of such a request', async () => {
    const exporters = [new InMemorySpanExporter(), new InMemorySpanExporter()];
    vi.stubEnv('OTEL_TRACES_SAMPLER', 'always_off');
    const processors = exporters.map((exporter) => new SimpleSpanProcessor({ exporter }));
    tracing = await startTracing('ptp-test', processors, 50);
    request('slow', 80);
    request('fast', 1);
    for (const processor of processors) await processor.forceFlush();
    const names = exporters.map((exporter) => exporter.getFinishedSpans().map(({ name }) => name));
    expect(names).toEqual([
      ['slow step', 'slow'],
      ['slow step', 'slow'],
    ]);
  });

  test('leaves what the sampler chose as it is', async () => {
    const exported = await start(1);
    expect(request('fast', 1)).toMatch(/-01$/);
    request('slow', 80);
    const spans = await exported();
    expect(spans.map(({ name }) => name)).toEqual(['fast step', 'fast', 'slow step', 'slow']);
    expect(spans.some(({ attributes }) => 'ptp.sampled.as' in attributes)).toBe(false);
  });

  test('tells requests of one trace apart', async () => {
    const exported = await start(0);
    const traceparent = `00-${'a'.repeat(32)}-${'b'.repeat(16)}-00`;
    request('one', 1, undefined, traceparent);
    request('two', 80, undefined, traceparent);
    expect((await exported()).map(({ name }) => name)).toEqual(['two step', 'two']);
  });

  test('holds a bounded number of spans and of requests', async () => {
    const exported = await start(0, 1);
    const root = span('long', { startTime: performance.now() - 10 });
    for (let i = 0; i < 5000; i++) recordSpan('step', { parent: root, startTime: 0, endTime: 1 });
    const many = Array.from({ length: 1100 }, (_, i) => span(`open ${i}`, { startTime: performance.now() - 10 }));
    endSpan(root);
    expect((await exported()).length).toBe(4096);
    for (const open of many) endSpan(open);
    expect((await exported()).length).toBe(4096 + 1023);
  });
});

describe('the standard variables', () => {
  test.each([
    [{}, 'ParentBased{root=AlwaysOnSampler'],
    [{ OTEL_TRACES_SAMPLER: 'always_off' }, 'AlwaysOffSampler'],
    [{ OTEL_TRACES_SAMPLER: 'traceidratio', OTEL_TRACES_SAMPLER_ARG: '0.01' }, 'TraceIdRatioBased{0.01}'],
    [{ OTEL_EXPORTER_OTLP_PROTOCOL: 'grpc' }, 'ParentBased'],
  ])('%o: %s', async (env, sampler) => {
    const options = await tailOptions(100, env);
    expect(options.sampling.sampler.toString()).toContain(sampler);
    expect(options.spanProcessors).toHaveLength(1);
    await options.spanProcessors[0]?.shutdown();
  });

  test.each([
    [{ OTEL_TRACES_SAMPLER: 'jaeger_remote' }, 'OTEL_TRACES_SAMPLER'],
    [{ OTEL_TRACES_SAMPLER: 'traceidratio', OTEL_TRACES_SAMPLER_ARG: '2' }, 'OTEL_TRACES_SAMPLER_ARG'],
    [{ OTEL_TRACES_EXPORTER: 'zipkin' }, 'OTEL_TRACES_EXPORTER'],
    [{ OTEL_EXPORTER_OTLP_PROTOCOL: 'http/json' }, 'OTEL_EXPORTER_OTLP_PROTOCOL'],
    [{ OTEL_CONFIG_FILE: '/some/file' }, 'OTEL_CONFIG_FILE'],
  ])('%o is refused', async (env, field) => {
    await expect(tailOptions(100, env)).rejects.toMatchObject({ code: 'failed_precondition', field });
  });
});

describe('a collector gets slow requests', () => {
  const bodies: string[] = [];

  test('by OTLP over gRPC', async () => {
    bodies.length = 0;
    const server = new Server();
    const raw = (bytes: Buffer) => bytes;
    const shape = {
      requestStream: false,
      responseStream: false,
      requestSerialize: raw,
      requestDeserialize: raw,
    } as const;
    const path = '/opentelemetry.proto.collector.trace.v1.TraceService/Export';
    const service = { export: { ...shape, path, responseSerialize: raw, responseDeserialize: raw } };
    server.addService(service, {
      export: ({ request }: { request: Buffer }, reply: (error: null, answer: Buffer) => void) => {
        bodies.push(request.toString('latin1'));
        reply(null, Buffer.alloc(0));
      },
    });
    const bind = promisify(server.bindAsync.bind(server));
    const port = await bind('127.0.0.1:0', ServerCredentials.createInsecure());
    await exportSlow(`http://127.0.0.1:${port}`, 'grpc');
    server.forceShutdown();
    expect(bodies.join()).toMatch(/slow step[\s\S]*ptp\.sampled\.as/);
    expect(bodies.join()).not.toContain('fast');
  });

  test('by OTLP over HTTP', async () => {
    bodies.length = 0;
    const server = createServer(async (request, response) => {
      for await (const chunk of request) bodies.push((chunk as Buffer).toString('latin1'));
      response.end();
    }).listen(0, '127.0.0.1');
    await once(server, 'listening');
    await exportSlow(`http://127.0.0.1:${(server.address() as AddressInfo).port}`, 'http/protobuf');
    server.close();
    expect(bodies.join()).toMatch(/slow step[\s\S]*ptp\.sampled\.as/);
    expect(bodies.join()).not.toContain('fast');
  });

  async function exportSlow(endpoint: string, protocol: string): Promise<void> {
    vi.stubEnv('OTEL_EXPORTER_OTLP_ENDPOINT', endpoint);
    vi.stubEnv('OTEL_EXPORTER_OTLP_PROTOCOL', protocol);
    vi.stubEnv('OTEL_TRACES_SAMPLER', 'always_off');
    tracing = await startTracing('ptp-test', undefined, 50);
    request('fast', 1);
    request('slow', 80);
    await tracing.stop();
  }
});

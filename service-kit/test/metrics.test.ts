import { Counter, Histogram } from 'prom-client';
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import { type Metrics, serveMetrics, startMetrics } from '../src/metrics.ts';
import { contextFrom, endSpan, exemplarLabels, newTrace, type Parent, span } from '../src/spans.ts';
import { memoryTracing } from './span-tree.ts';

const OPEN = 'application/openmetrics-text; version=1.0.0';
const TRACE = '0af7651916cd43dd8448eb211c80319c';
const SPAN = 'b7ad6b7169203331';
const sampled = `00-${TRACE}-${SPAN}-01`;

let tracing: Awaited<ReturnType<typeof memoryTracing>>;
let metrics: Metrics;
beforeEach(async () => {
  tracing = await memoryTracing();
  metrics = startMetrics('ptp-test', 'fake');
});
afterEach(async () => {
  vi.useRealTimers();
  await tracing.stop();
});

const seconds = (labelNames: string[] = []) =>
  new Histogram({
    name: 'ptp_test_duration_seconds',
    help: 'For tests.',
    labelNames,
    buckets: [0.25, 1, 4],
    enableExemplars: true,
    registers: [metrics.registry],
  });
const lines = async (accept: string, pattern: RegExp) =>
  (await metrics.exposition(accept)).text.split('\n').filter((line) => pattern.test(line));
const exemplars = () => lines(OPEN, / # \{/);

describe('exemplars', () => {
  test('are the newest of each bucket and series, on the line of the bucket', async () => {
    const histogram = seconds(['mode', 'of']);
    vi.useFakeTimers({ now: 1_700_000_000_250, toFake: ['Date'] });
    const observe = (value: number, labels: Record<string, string | number>, traceparent?: string) =>
      histogram.observe({ value, labels, exemplarLabels: exemplarLabels(contextFrom(traceparent)) });
    observe(0.5, { mode: 'a' }, `00-${'1'.repeat(32)}-${SPAN}-01`);
    observe(1, { mode: 'a' }, sampled);
    observe(0.75, { mode: 'a' });
    observe(9, { mode: 'a' }, `00-${TRACE}-${'2'.repeat(16)}-01`);
    observe(0.1, { mode: 'b', of: 1 }, sampled);
    observe(0.2, { of: 1, mode: 'b' }, `00-${TRACE}-${'3'.repeat(16)}-01`);
    expect(await lines(OPEN, /^ptp_test_duration_seconds_bucket/)).toEqual([
      'ptp_test_duration_seconds_bucket{le="0.25",mode="a"} 0',
      `ptp_test_duration_seconds_bucket{le="1.0",mode="a"} 3 # {trace_id="${TRACE}",span_id="${SPAN}"} 1 1700000000.25`,
      'ptp_test_duration_seconds_bucket{le="4.0",mode="a"} 3',
      `ptp_test_duration_seconds_bucket{le="+Inf",mode="a"} 4 # {trace_id="${TRACE}",span_id="${'2'.repeat(16)}"} 9 1700000000.25`,
      `ptp_test_duration_seconds_bucket{le="0.25",mode="b",of="1"} 2 # {trace_id="${TRACE}",span_id="${'3'.repeat(16)}"} 0.2 1700000000.25`,
      'ptp_test_duration_seconds_bucket{le="1.0",mode="b",of="1"} 2',
      'ptp_test_duration_seconds_bucket{le="4.0",mode="b",of="1"} 2',
      'ptp_test_duration_seconds_bucket{le="+Inf",mode="b",of="1"} 2',
    ]);
  });

  test('are absent for unsampled requests, and in the text format', async () => {
    const histogram = seconds();
    const unsampled = contextFrom(`00-${TRACE}-${SPAN}-00`, newTrace);
    const child = span('child', { parent: unsampled });
    const parents: (Parent | undefined)[] = [undefined, contextFrom(undefined), unsampled, child];
    for (const within of parents) {
      histogram.observe({ value: 0.5, exemplarLabels: exemplarLabels(within) });
    }
    expect(await exemplars()).toEqual([]);
    histogram.observe({ value: 0.5, exemplarLabels: exemplarLabels(contextFrom(sampled)) });
    expect(await exemplars()).toHaveLength(1);
    expect((await metrics.exposition()).text).not.toContain('trace_id');
  });

  test('name the span that they were recorded in', async () => {
    const step = span('step');
    seconds().observe({ value: 2, exemplarLabels: exemplarLabels(step) });
    endSpan(step);
    const { traceId, spanId } = step.spanContext();
    expect(await exemplars()).toEqual([expect.stringContaining(`# {trace_id="${traceId}",span_id="${spanId}"} 2 `)]);
    expect((await tracing.finished()).map((recorded) => recorded.spanContext().spanId)).toEqual([spanId]);
  });
});

test('both formats, in any order, have the counters, units and types of their specification', async () => {
  seconds().observe({ value: 0.5 });
  const { registry } = metrics;
  new Counter({ name: 'ptp_things_total', help: 'Things.', registers: [registry] }).inc(3);
  const interesting = /things|_(sum|count) |^# .*duration|EOF/;
  for (const _ of ['first', 'second']) {
    expect(await lines(OPEN, interesting)).toEqual([
      '# HELP ptp_test_duration_seconds For tests.',
      '# TYPE ptp_test_duration_seconds histogram',
      '# UNIT ptp_test_duration_seconds seconds',
      'ptp_test_duration_seconds_sum 0.5',
      'ptp_test_duration_seconds_count 1',
      '# HELP ptp_things Things.',
      '# TYPE ptp_things counter',
      'ptp_things_total 3',
      '# EOF',
    ]);
    expect(await lines('', interesting)).toEqual([
      '# HELP ptp_test_duration_seconds For tests.',
      '# TYPE ptp_test_duration_seconds histogram',
      'ptp_test_duration_seconds_sum 0.5',
      'ptp_test_duration_seconds_count 1',
      '# HELP ptp_things_total Things.',
      '# TYPE ptp_things_total counter',
      'ptp_things_total 3',
    ]);
  }
  const [open, text] = await Promise.all([metrics.exposition(OPEN), metrics.exposition()]);
  expect(open.text).toMatch(/^ptp_things_total 3$[\s\S]*\n# EOF\n$/m);
  expect(text.text).toMatch(/^# TYPE ptp_things_total counter$/m);
  expect(text.text).not.toContain('# EOF');
});

test.each([
  [undefined, false],
  ['*/*', false],
  ['text/plain', false],
  [OPEN, true],
  ['Application/OpenMetrics-Text; Version="1.0.0"; charset=utf-8', true],
  // Prometheus 3
  ['application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=1.0.0;q=0.3,*/*;q=0.1', true],
])('a scraper that accepts %j gets OpenMetrics: %s', async (accept, open) => {
  const { type } = await metrics.exposition(accept);
  expect(type).toBe(
    open ? 'application/openmetrics-text; version=1.0.0; charset=utf-8' : 'text/plain; version=0.0.4; charset=utf-8',
  );
});

test('probes get 503 at /readyz until the service accepts calls, and 200 at /healthz', async () => {
  let ready = false;
  const address = { target: '127.0.0.1:0', host: '127.0.0.1', port: 0 };
  const served = await serveMetrics(metrics, address, 'PTP_METRICS_LISTEN', () => ready);
  try {
    const statusOf = async (path: string) => (await fetch(`http://127.0.0.1:${served.port}${path}`)).status;
    expect([await statusOf('/healthz'), await statusOf('/readyz')]).toEqual([200, 503]);
    ready = true;
    expect([await statusOf('/readyz'), await statusOf('/other')]).toEqual([200, 404]);
  } finally {
    await served.stop();
  }
});

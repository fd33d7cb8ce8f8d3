import { engineMetrics } from '@ptp/engine/engine-metrics';
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import { prefersOpenMetrics } from '../src/accept.ts';
import { type Metrics, startMetrics } from '../src/metrics.ts';
import { contextFrom, contextOf, endSpan, newTrace, span, traceparentOf } from '../src/spans.ts';
import { memoryTracing } from './span-tree.ts';

const OPEN = 'application/openmetrics-text; version=1.0.0';
const TRACE = '0af7651916cd43dd8448eb211c80319c';
const SPAN = 'b7ad6b7169203331';
const sampled = `00-${TRACE}-${SPAN}-01`;

let tracing: Awaited<ReturnType<typeof memoryTracing>>;
let metrics: Metrics;
beforeEach(async () => {
  tracing = await memoryTracing();
  metrics = await startMetrics('ptp-test', 'fake');
});
afterEach(async () => {
  vi.useRealTimers();
  await metrics.stop();
  await tracing.stop();
});

const seconds = (name = 'ptp.test.duration') =>
  metrics.meter.createHistogram(name, {
    unit: 's',
    description: 'For "tests",\non two lines.',
    advice: { explicitBucketBoundaries: [0.25, 1, 4] },
  });
const openMetrics = async () => (await metrics.exposition(OPEN)).text;
const lines = async (start: string) => (await openMetrics()).split('\n').filter((line) => line.startsWith(start));
const exemplars = async () => (await openMetrics()).split('\n').filter((line) => line.includes(' # {'));

describe('exemplars', () => {
  test('are the newest of each bucket and series, where the bucket is', async () => {
    const histogram = seconds();
    vi.useFakeTimers({ now: 1_700_000_000_250, toFake: ['Date'] });
    histogram.record(0.5, { mode: 'a' }, contextOf(contextFrom(`00-${'1'.repeat(32)}-${SPAN}-01`)));
    histogram.record(1, { mode: 'a' }, contextOf(contextFrom(sampled)));
    histogram.record(0.75, { mode: 'a' });
    histogram.record(9, { mode: 'a' }, contextOf(contextFrom(`00-${TRACE}-${'2'.repeat(16)}-01`)));
    histogram.record(0.1, { mode: 'b', of: 1 }, contextOf(contextFrom(sampled)));
    histogram.record(0.2, { of: 1, mode: 'b' }, contextOf(contextFrom(`00-${TRACE}-${'3'.repeat(16)}-01`)));
    expect(await lines('ptp_test_duration_seconds_bucket')).toEqual([
      'ptp_test_duration_seconds_bucket{mode="a",le="0.25"} 0',
      `ptp_test_duration_seconds_bucket{mode="a",le="1.0"} 3 # {trace_id="${TRACE}",span_id="${SPAN}"} 1 1700000000.25`,
      'ptp_test_duration_seconds_bucket{mode="a",le="4.0"} 3',
      `ptp_test_duration_seconds_bucket{mode="a",le="+Inf"} 4 # {trace_id="${TRACE}",span_id="${'2'.repeat(16)}"} 9 1700000000.25`,
      `ptp_test_duration_seconds_bucket{mode="b",of="1",le="0.25"} 2 # {trace_id="${TRACE}",span_id="${'3'.repeat(16)}"} 0.2 1700000000.25`,
      'ptp_test_duration_seconds_bucket{mode="b",of="1",le="1.0"} 2',
      'ptp_test_duration_seconds_bucket{mode="b",of="1",le="4.0"} 2',
      'ptp_test_duration_seconds_bucket{mode="b",of="1",le="+Inf"} 2',
    ]);
  });

  test('are none where nothing is sampled, and in the older format', async () => {
    const histogram = seconds();
    const unsampled = `00-${TRACE}-${SPAN}-00`;
    histogram.record(0.5);
    histogram.record(0.5, {}, contextOf(contextFrom(undefined)));
    histogram.record(0.5, {}, contextOf(contextFrom(unsampled, newTrace)));
    histogram.record(0.5, {}, contextOf(span('child', { parent: contextFrom(unsampled, newTrace) })));
    expect(await exemplars()).toEqual([]);
    histogram.record(0.5, {}, contextOf(contextFrom(sampled)));
    expect(await exemplars()).toHaveLength(1);
    expect((await metrics.exposition()).text).not.toContain('trace_id');
  });

  test('name the span that they were recorded in', async () => {
    const histogram = seconds();
    const step = span('step');
    histogram.record(2, {}, contextOf(step));
    endSpan(step);
    const { traceId, spanId } = step.spanContext();
    expect(await exemplars()).toEqual([expect.stringContaining(`# {trace_id="${traceId}",span_id="${spanId}"} 2 `)]);
    expect((await tracing.finished()).map((recorded) => recorded.spanContext().spanId)).toEqual([spanId]);
  });

  test('of an engine name the callers, and for a run one of them', async () => {
    const engine = {
      usage: () => ({ sequences: 0, cacheBytes: 0 }),
      prefixCache: () => ({ bytes: 0, sequences: 0, hits: 0, lookups: 0, reusedTokens: 0 }),
    };
    const observe = engineMetrics(metrics.meter, engine as unknown as Parameters<typeof engineMetrics>[1]);
    const caller = traceparentOf(span('verify'));
    observe({
      slots: [
        { queueMicros: 100, traceparent: '' },
        { queueMicros: 900, traceparent: caller },
      ],
      runMicros: 3000,
      batchTokens: 12,
    });
    const [, traceId, spanId] = caller.split('-');
    const told = (await exemplars()).map((line) => line.replace(/_bucket.*le=/, ' ').replace(/ \d+\.?\d*$/, ''));
    expect(told).toEqual([
      `ptp_engine_queue_duration_seconds "0.001"} 2 # {trace_id="${traceId}",span_id="${spanId}"} 0.0009`,
      `ptp_engine_run_duration_seconds "0.003"} 1 # {trace_id="${traceId}",span_id="${spanId}"} 0.003`,
    ]);
  });
});

describe('OpenMetrics', () => {
  test('has metadata under names without `_total`, units, escapes, and an end', async () => {
    seconds().record(0.5);
    metrics.meter.createCounter('ptp.things', { unit: '{thing}' }).add(3, { said: 'a "b" \\ c\nd', 'of.it': true });
    metrics.meter.createUpDownCounter('ptp.room', { unit: 'By' }).add(-2);
    const { type, text } = await metrics.exposition(OPEN);
    expect(type).toBe('application/openmetrics-text; version=1.0.0; charset=utf-8');
    expect(text.split('\n').filter((line) => /things|room|target|_(sum|count) |^# .*duration|EOF/.test(line))).toEqual([
      '# TYPE target info',
      '# HELP target Target metadata',
      expect.stringMatching(/^target_info\{service_name="ptp-test",.*\} 1$/),
      '# TYPE ptp_test_duration_seconds histogram',
      '# UNIT ptp_test_duration_seconds seconds',
      '# HELP ptp_test_duration_seconds For \\"tests\\",\\non two lines.',
      'ptp_test_duration_seconds_count 1',
      'ptp_test_duration_seconds_sum 0.5',
      '# TYPE ptp_things counter',
      '# HELP ptp_things ',
      'ptp_things_total{said="a \\"b\\" \\\\ c\\nd",of_it="true"} 3',
      '# TYPE ptp_room_bytes gauge',
      '# UNIT ptp_room_bytes bytes',
      '# HELP ptp_room_bytes ',
      'ptp_room_bytes -2',
      '# EOF',
    ]);
    expect(text.endsWith('\n# EOF\n')).toBe(true);
  });

  test('is not what others are answered: they have the older format', async () => {
    seconds().record(0.5);
    metrics.meter.createCounter('ptp.things', { description: 'Things.' }).add(3);
    const { type, text } = await metrics.exposition('text/plain');
    expect(type).toBe('text/plain; version=0.0.4; charset=utf-8');
    expect(text).toContain('# HELP ptp_things_total Things.\n# TYPE ptp_things_total counter\nptp_things_total 3\n');
    expect(text).toContain('ptp_test_duration_seconds_bucket{le="1"} 1\n');
    expect(text).not.toMatch(/# UNIT|# EOF/);
  });
});

test.each([
  [undefined, false],
  ['', false],
  ['*/*', false],
  ['text/plain', false],
  ['application/json', false],
  [OPEN, true],
  ['application/openmetrics-text', true],
  ['Application/OpenMetrics-Text; Version="1.0.0"; charset=utf-8', true],
  ['application/openmetrics-text; version=0.0.1', false],
  ['application/openmetrics-text, text/plain', false],
  ['application/openmetrics-text; q=0.4, text/plain; q=0.5', false],
  ['text/plain; q=0.5, application/openmetrics-text; q=0.51', true],
  ['application/openmetrics-text; q=0, */*', false],
  ['application/*, text/*; q=0.5', true],
  ['application/openmetrics-text; q=0.2, text/plain; version=0.0.4; q=0.1, text/plain; q=0.9', true],
  ['*/*; q=0.1, application/openmetrics-text; q=much', false],
  // Prometheus 2 and 3
  [
    'application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1',
    true,
  ],
  [
    'application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,application/openmetrics-text;version=0.0.1;q=0.4,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.3,text/plain;version=0.0.4;q=0.2,*/*;q=0.1',
    true,
  ],
  ['text/plain;version=0.0.4;q=0.6,application/openmetrics-text;version=1.0.0;q=0.5,*/*;q=0.1', false],
])('a scraper that accepts %j prefers OpenMetrics: %s', (accept, prefers) => {
  expect(prefersOpenMetrics(accept)).toBe(prefers);
});

import { type Metrics, startMetrics } from '@ptp/service-kit/metrics';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { memoryTracing } from '../../../service-kit/test/span-tree.ts';
import { TestPair } from '../../../test/test-pair.ts';
import { PairGenerator } from '../../src/decode/generate.ts';
import { gatewayMetrics, metricsObserver } from '../../src/observe/metrics.ts';
import { spanObserver } from '../../src/observe/spans.ts';
import { TraceStore } from '../../src/observe/trace-store.ts';

const never = new AbortController().signal;
const request = { prompt: [1, 2, 3], sampling: { temperature: 0.75, topK: 0, topP: 1 }, seed: 1n, maxTokens: 30 };
const unsampled = `00-${'a'.repeat(32)}-${'b'.repeat(16)}-00`;
const REQUEST = 'gen_ai_server_request_duration_seconds';

let pair: Awaited<ReturnType<typeof TestPair.fake>>;
let metrics: Metrics;
let generator: PairGenerator;
let stopTracing: (() => Promise<void>) | undefined;
beforeEach(async () => {
  metrics = startMetrics('ptp-gateway', 'fake');
  pair = await TestPair.fake({ accuracy: 0.8 });
  const observers = [spanObserver(), metricsObserver(gatewayMetrics(metrics.registry)), new TraceStore(5)];
  generator = new PairGenerator(pair.services, { length: 5, budget: 16, mode: 'overlap', ahead: 4 }, observers);
});
afterEach(async () => {
  await pair.stop();
  metrics.stop();
  await stopTracing?.();
  stopTracing = undefined;
});

async function traced() {
  const tracing = await memoryTracing();
  stopTracing = tracing.stop;
  return tracing;
}

async function exemplars() {
  const { text } = await metrics.exposition('application/openmetrics-text');
  const pattern = /^(\w+)_bucket\{le="(.*?)".*?\} \d+ # \{trace_id="(\w+)",span_id="(\w+)"\} (\S+) (\S+)$/gm;
  return [...text.matchAll(pattern)].map(([, name = '', le = '', traceId = '', spanId = '', value, time]) => ({
    name,
    le: Number(le.replace('+Inf', 'Infinity')),
    traceId,
    spanId,
    value: Number(value),
    time: Number(time),
  }));
}

test('lead from buckets of requests to spans of requests, and from buckets of steps to spans of steps', async () => {
  const tracing = await traced();
  const began = Date.now() / 1000;
  const durations: number[] = [];
  for await (const { stats } of generator.generate(request, never)) durations.push(stats.stepMicros / 1e6);
  const spans = await tracing.finished();
  const idsOf = (wanted: string) =>
    spans.filter(({ name }) => name === wanted).map((span) => span.spanContext().spanId);
  const found = await exemplars();
  const of = (name: string) => found.filter((exemplar) => exemplar.name === name);
  const [root] = idsOf('text_completion fake');
  for (const name of ['request_duration', 'time_to_first_token', 'time_per_output_token']) {
    expect(of(`gen_ai_server_${name}_seconds`)).toEqual([expect.objectContaining({ spanId: root })]);
  }
  expect(of('ptp_step_duration_seconds').length).toBeGreaterThan(0);
  for (const name of ['ptp_step_duration_seconds', 'ptp_step_verify_duration_seconds', 'ptp_step_accepted']) {
    for (const { spanId } of of(name)) expect(idsOf('ptp.step')).toContain(spanId);
  }
  for (const { value } of of('ptp_step_duration_seconds')) expect(durations).toContain(value);
  for (const { traceId, value, le, time } of found) {
    expect(traceId).toBe(spans[0]?.spanContext().traceId);
    expect(value).toBeLessThanOrEqual(le);
    expect(time).toBeGreaterThanOrEqual(began);
  }
});

test('of a failed request lead to its span too', async () => {
  const tracing = await traced();
  const caller = AbortSignal.abort();
  await expect(generator.generate(request, caller).next()).rejects.toThrow();
  const [span] = await tracing.finished();
  expect(await exemplars()).toEqual([expect.objectContaining({ name: REQUEST, ...idsOf(span) })]);
});

test('are absent for unsampled requests and without tracing', async () => {
  for await (const _ of generator.generate(request, never));
  expect(await exemplars()).toEqual([]);
  await traced();
  for await (const _ of generator.generate({ ...request, traceparent: unsampled }, never));
  expect(await exemplars()).toEqual([]);
});

function idsOf(span: { spanContext(): { traceId: string; spanId: string } } | undefined) {
  const { traceId, spanId } = span?.spanContext() ?? {};
  return { traceId, spanId };
}

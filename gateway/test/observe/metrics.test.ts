import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { engineMetrics } from '@ptp/engine/engine-metrics';
import { PtpError } from '@ptp/protocol/errors';
import { type Metrics, serveMetrics, startMetrics } from '@ptp/service-kit/metrics';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { silent, TestPair } from '../../../test/test-pair.ts';
import { Admission } from '../../src/access/admission.ts';
import { ApiKeys } from '../../src/access/api-keys.ts';
import { createHttp, HTTP_LIMITS } from '../../src/app.ts';
import { PairGenerator } from '../../src/decode/generate.ts';
import type { Call } from '../../src/decode/observer.ts';
import type { GenerationStep } from '../../src/decode/types.ts';
import { GrammarCache } from '../../src/grammar/cache.ts';
import { gatewayMetrics, metricsObserver, watchHealth } from '../../src/observe/metrics.ts';
import { chatTemplate, tokenizer } from '../testing/test-server.ts';

const hasPromtool = spawnSync('promtool', ['--version']).status === 0;
const TEXT = 'text/plain; version=0.0.4; charset=utf-8';
const OPEN_METRICS = 'application/openmetrics-text; version=1.0.0; charset=utf-8';
const never = new AbortController().signal;

let pair: Awaited<ReturnType<typeof TestPair.fake>>;
let metrics: Metrics;
let generator: PairGenerator;
let url: string;
let close: () => Promise<void>;
beforeAll(async () => {
  metrics = startMetrics('ptp-gateway', 'fake');
  const counted = gatewayMetrics(metrics.registry);
  pair = await TestPair.fake({ accuracy: 0.8 });
  const limits = { length: 5, budget: 16, mode: 'overlap' } as const;
  generator = new PairGenerator(pair.services, limits, [metricsObserver(counted)]);
  watchHealth(metrics.registry, () => generator.health(), true);
  const sha256 = createHash('sha256').update('key').digest('hex');
  const app = await createHttp({
    exposition: metrics.exposition,
    onRejection: (code) => counted.refusals.inc({ error_type: code }),
    generator,
    tokenizer,
    grammars: new GrammarCache(tokenizer, generator.model),
    chatTemplate,
    admission: new Admission(4),
    keys: new ApiKeys([{ name: 'ada', sha256, requests_per_minute: 1 }]),
    settings: { ...HTTP_LIMITS, bodyLimit: 1 << 20, stallMillis: 1000, keepAliveMillis: 1000, corsOrigins: '' },
    logger: silent,
  });
  url = await app.listen({ port: 0, host: '127.0.0.1' });
  close = () => app.close();
});
afterAll(async () => {
  await close();
  await pair.stop();
  metrics.stop();
});

async function exposition(): Promise<string> {
  const response = await fetch(`${url}/metrics`);
  expect(response.status).toBe(200);
  expect(response.headers.get('content-type')).toBe(TEXT);
  return response.text();
}

/** Returns the sum of the samples of a metric that have all of the labels. */
function total(text: string, name: string, labels: Readonly<Record<string, string>> = {}): number {
  const samples = text.split('\n').filter((line) => line.startsWith(`${name}{`) || line.startsWith(`${name} `));
  const fitting = samples.filter((line) =>
    Object.entries(labels).every(([key, value]) => line.includes(`${key}="${value}"`)),
  );
  return fitting.reduce((sum, line) => sum + Number(line.split(' ').at(-1)), 0);
}

describe('the gateway counts', () => {
  const steps: GenerationStep[] = [];
  let text = '';
  beforeAll(async () => {
    for (let seed = 0n; seed < 5n; seed++) {
      const request = { prompt: [1, 2, 3], sampling: { temperature: 0.75, topK: 0, topP: 1 }, seed, maxTokens: 40 };
      for await (const step of generator.generate(request, never)) steps.push(step);
    }
    text = await exposition();
  });
  const sum = (of: (step: GenerationStep) => number) => steps.reduce((all, step) => all + of(step), 0);

  test('sequences, tokens and steps', () => {
    expect(total(text, 'gen_ai_server_request_duration_seconds_count')).toBe(5);
    expect(total(text, 'gen_ai_server_time_to_first_token_seconds_count')).toBe(5);
    expect(total(text, 'gen_ai_server_time_per_output_token_seconds_count')).toBe(5);
    expect(total(text, 'ptp_tokens_input_total')).toBe(15);
    expect(total(text, 'ptp_tokens_output_total')).toBe(sum(({ tokens }) => tokens.length));
    expect(total(text, 'ptp_steps_total')).toBe(steps.length);
    expect(total(text, 'ptp_steps_total', { mode: 'overlap' })).toBe(steps.length);
    expect(total(text, 'ptp_step_duration_seconds_count')).toBe(steps.length);
    expect(total(text, 'ptp_streams')).toBe(0);
    expect(total(text, 'ptp_peer_usable')).toBe(2);
  });

  test('proposed tokens by source, position and outcome', () => {
    const accepted = sum(({ stats }) => stats.accepted);
    expect(accepted).toBeGreaterThan(20);
    expect(total(text, 'ptp_tokens_proposed_total', { accepted: 'true' })).toBe(accepted);
    expect(total(text, 'ptp_tokens_proposed_total')).toBe(sum(({ stats }) => stats.drafted));
    expect(total(text, 'ptp_tokens_proposed_total', { position: '1' })).toBe(
      steps.filter(({ stats }) => stats.drafted > 0).length,
    );
    expect(total(text, 'ptp_step_accepted_sum')).toBe(accepted);
  });

  test('lost drafts, lost verifiers and refusals from 0, so that alerts notice the first ones', async () => {
    const other = startMetrics('ptp-gateway', 'other');
    const { lostDrafts, refusals, verifierLosses } = gatewayMetrics(other.registry);
    const counters = await Promise.all([lostDrafts, refusals, verifierLosses].map((counter) => counter.get()));
    other.stop();
    expect(counters.map(({ values }) => values.map(({ labels, value }) => [...Object.values(labels), value]))).toEqual([
      [
        ['late', 0],
        ['failed', 0],
      ],
      [
        ['resource_exhausted', 0],
        ['unauthenticated', 0],
      ],
      [[0]],
    ]);
  });

  test('drafts that were late or failed', async () => {
    const other = startMetrics('ptp-gateway', 'other');
    const lost = gatewayMetrics(other.registry);
    const model = generator.model;
    const request = { prompt: [1], sampling: { temperature: 0, topK: 0, topP: 1 }, seed: 0n, maxTokens: 1 };
    const listener = metricsObserver(lost).requestStarted({ request, model, startedAt: 0, traceparent: '' });
    const call = { kind: 'draft' } as Call;
    for (const code of ['deadline_exceeded', 'deadline_exceeded', 'unavailable', 'cancelled'] as const) {
      listener.callEnded?.(call, { error: new PtpError(code, 'lost') }, 0);
    }
    listener.callEnded?.({ kind: 'verify' } as Call, { error: new PtpError('unavailable', 'lost') }, 0);
    const { values } = await lost.lostDrafts.get();
    other.stop();
    expect(values.map(({ labels, value }) => [labels.reason, value])).toEqual([
      ['late', 2],
      ['failed', 1],
    ]);
  });

  test('the times of the steps', () => {
    const seconds = sum(({ stats }) => stats.verifyMicros) / 1e6;
    expect(total(text, 'ptp_step_verify_duration_seconds_sum')).toBeCloseTo(seconds, 6);
    expect(total(text, 'ptp_step_overlap_seconds_total')).toBeGreaterThan(0);
    expect(total(text, 'ptp_step_overlap_seconds_total')).toBeLessThan(seconds);
  });

  test('rejections and failures by their kind', async () => {
    const ask = (authorization: string) =>
      fetch(`${url}/v1/models`, { headers: { authorization } }).then(({ status }) => status);
    expect([await ask('Bearer key'), await ask('Bearer key'), await ask('Bearer no')]).toEqual([200, 429, 401]);
    const gone = AbortSignal.abort();
    const request = { prompt: [1], sampling: { temperature: 1, topK: 0, topP: 1 }, seed: 1n, maxTokens: 5 };
    await expect(generator.generate(request, gone)[Symbol.asyncIterator]().next()).rejects.toThrow();
    const after = await exposition();
    expect(total(after, 'ptp_refusals_total', { error_type: 'resource_exhausted' })).toBe(1);
    expect(total(after, 'ptp_refusals_total', { error_type: 'unauthenticated' })).toBe(1);
    expect(total(after, 'gen_ai_server_request_duration_seconds_count', { error_type: 'cancelled' })).toBe(1);
  });

  test('chats by operation, and a client that disconnects between two steps as cancelled', async () => {
    const before = total(await exposition(), 'gen_ai_server_request_duration_seconds_count', {
      error_type: 'cancelled',
    });
    const caller = new AbortController();
    const sampling = { temperature: 1, topK: 0, topP: 1 };
    const request = { prompt: [1], sampling, seed: 1n, maxTokens: 50, operation: 'chat' as const };
    for await (const _ of generator.generate(request, caller.signal)) {
      caller.abort();
      break;
    }
    const after = await exposition();
    const named = { error_type: 'cancelled', gen_ai_operation_name: 'chat', gen_ai_provider_name: 'ptp' };
    expect(total(after, 'gen_ai_server_request_duration_seconds_count', named)).toBe(1);
    expect(total(after, 'gen_ai_server_request_duration_seconds_count', { error_type: 'cancelled' })).toBe(before + 1);
  });

  test('contains the build and no prompt', () => {
    expect(text).toMatch(/^ptp_build_info\{.*model="fake".*\} 1$/m);
    expect(text).toContain('service_name="ptp-gateway"');
  });
});

test('scrapers that prefer OpenMetrics get it, with the same figures', async () => {
  const response = await fetch(`${url}/metrics`, { headers: { accept: `${OPEN_METRICS}, text/plain; q=0.5` } });
  expect(response.headers.get('content-type')).toBe(OPEN_METRICS);
  const open = await response.text();
  expect(open.endsWith('\n# EOF\n')).toBe(true);
  const text = await exposition();
  for (const name of ['ptp_tokens_output_total', 'ptp_step_duration_seconds_bucket', 'ptp_step_accepted_sum']) {
    expect(total(open, name)).toBeGreaterThan(0);
    expect(total(open, name)).toBe(total(text, name));
  }
});

test('a target served alone does not report a missing drafter', async () => {
  const own = startMetrics('ptp-gateway', 'fake');
  watchHealth(own.registry, () => pair.generator.health(), false);
  const { text } = await own.exposition();
  expect(total(text, 'ptp_peer_usable', { peer: 'verifier' })).toBe(1);
  expect(text).not.toContain('peer="drafter"');
  own.stop();
});

test('a failing exposition is a server error, and the server keeps running', async () => {
  const own = startMetrics('ptp-verifier', 'fake');
  let fails = true;
  const exposition = () => (fails ? Promise.reject(new Error('no reader')) : own.exposition());
  const address = { target: '127.0.0.1:0', host: '127.0.0.1', port: 0 };
  const { port, stop } = await serveMetrics({ ...own, exposition }, address, 'PTP_METRICS_LISTEN');
  const ask = () => fetch(`http://127.0.0.1:${port}/metrics`);
  expect((await ask()).status).toBe(500);
  fails = false;
  expect((await ask()).status).toBe(200);
  await stop();
  own.stop();
});

test('a service with an engine serves metrics of its runs and caches at its own address', async () => {
  const own = startMetrics('ptp-verifier', 'fake');
  const observe = engineMetrics(own.registry, pair.target);
  observe({ slots: [{ queueMicros: 100 }, { queueMicros: 200 }], runMicros: 3000, batchTokens: 12 });
  const address = { target: '127.0.0.1:0', host: '127.0.0.1', port: 0 };
  const taken = { target: 'unix:/no/such/folder/x', path: '/no/such/folder/x' };
  await expect(serveMetrics(own, taken, 'PTP_METRICS_LISTEN')).rejects.toMatchObject({ field: 'PTP_METRICS_LISTEN' });
  const { port, stop } = await serveMetrics(own, address, 'PTP_METRICS_LISTEN');
  const answer = await fetch(`http://127.0.0.1:${port}/metrics`);
  expect(answer.headers.get('content-type')).toBe(TEXT);
  const body = await answer.text();
  const open = await fetch(`http://127.0.0.1:${port}/metrics`, { headers: { accept: OPEN_METRICS } });
  expect(open.headers.get('content-type')).toBe(OPEN_METRICS);
  expect(await open.text()).toMatch(/^# UNIT ptp_engine_run_duration_seconds seconds$[\s\S]*\n# EOF\n$/m);
  expect((await fetch(`http://127.0.0.1:${port}/other`)).status).toBe(404);
  await stop();
  expect(total(body, 'ptp_engine_queue_duration_seconds_count')).toBe(2);
  expect(total(body, 'ptp_engine_run_duration_seconds_sum')).toBeCloseTo(0.003, 9);
  expect(total(body, 'ptp_engine_batch_size_sum')).toBe(2);
  expect(total(body, 'ptp_engine_batch_tokens_sum')).toBe(12);
  expect(body).toContain('ptp_engine_sequences');
  own.stop();
});

test.skipIf(!hasPromtool)('the exposition passes promtool', async () => {
  const { status, stdout, stderr } = spawnSync('promtool', ['check', 'metrics'], { input: await exposition() });
  expect([status, stdout.toString(), stderr.toString()]).toEqual([0, '', '']);
});

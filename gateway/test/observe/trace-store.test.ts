import type { DraftOutput } from '@ptp/engine/types';
import { afterEach, describe, expect, test } from 'vitest';
import { TestPair } from '../../../test/test-pair.ts';
import { PairGenerator } from '../../src/decode/generate.ts';
import type { DraftLimits, GenerationRequest, Generator } from '../../src/decode/types.ts';
import { perfettoTrace } from '../../src/observe/perfetto.ts';
import { type RequestTrace, STEPS_KEPT } from '../../src/observe/request-trace.ts';
import { TraceStore } from '../../src/observe/trace-store.ts';
import { ScriptedGenerator } from '../testing/scripted-generator.ts';

const model = { modelId: 'fake', vocabulary: 256, contextLength: 1024, endOfText: 0 };
const request: GenerationRequest = {
  prompt: [1, 2, 3],
  sampling: { temperature: 1, topK: 0, topP: 1 },
  seed: 7n,
  maxTokens: 40,
  requestId: 'req-7',
};

async function drain(generator: Generator, given = request, signal = new AbortController().signal): Promise<number> {
  let steps = 0;
  for await (const _ of generator.generate(given, signal)) steps++;
  return steps;
}

let pair: Awaited<ReturnType<typeof TestPair.fake>> | undefined;
afterEach(async () => {
  await pair?.stop();
  pair = undefined;
});

const LATER_MICROS = 100_000;

/** Sends a request to the real services and records it. */
async function recorded(
  options: Parameters<typeof TestPair.fake>[0] = {},
  limits: DraftLimits = { length: 5, budget: 16, mode: 'overlap' },
): Promise<RequestTrace> {
  pair = await TestPair.fake({ accuracy: 0.8, latencyMs: 4, ...options });
  const store = new TraceStore(10);
  const generator = new PairGenerator(pair.services, limits, [store]);
  const steps = await drain(generator);
  const [trace] = store.list();
  expect(trace?.summary().steps).toBe(steps);
  return trace as RequestTrace;
}

describe('a recorded request', () => {
  test('has every step with its calls, each inside its step, draft concurrent with verify', async () => {
    const trace = await recorded();
    const { steps, ...summary } = trace.summary();
    expect(summary).toMatchObject({ finish: 'length', completion_tokens: 40, prompt_tokens: 3 });
    expect(trace.kept).toHaveLength(steps);
    let [overlapped, verified] = [0, Number.NEGATIVE_INFINITY];
    for (const { start, stats, calls } of trace.kept) {
      const verifies = calls.filter(({ kind }) => kind === 'verify');
      expect(verifies).toHaveLength(1);
      const [verify] = verifies;
      expect(verify).toMatchObject({ service: 'verifier', block: stats.drafted, run_us: stats.verifyRunMicros });
      for (const call of calls) {
        expect(call.queue_us + call.run_us).toBeLessThanOrEqual(call.us);
        // Calls and steps are timed independently, so their times may differ on a busy machine.
        expect(call.start_us).toBeGreaterThan(start - LATER_MICROS);
        expect(call.start_us + call.us).toBeLessThan(start + stats.stepMicros + LATER_MICROS);
        expect(call.start_us).toBeGreaterThanOrEqual(verified);
        if (call.kind === 'draft' && verify) {
          overlapped++;
          expect(call.start_us).toBeGreaterThanOrEqual(verify.start_us);
          expect(call.start_us).toBeLessThan(verify.start_us + verify.us);
        }
        if (call.kind === 'redraft' && verify) expect(call.start_us + call.us).toBeLessThanOrEqual(verify.start_us);
      }
      // The calls of a step follow the verify call of the previous step.
      verified = (verify?.start_us ?? 0) + (verify?.us ?? 0);
      expect(calls.some(({ kind }) => kind === 'draft')).toBe(stats.draftMicros > 0);
      expect(calls.some(({ kind }) => kind === 'redraft')).toBe(stats.redraftMicros > 0);
    }
    expect(overlapped).toBeGreaterThan(1);
    const opened = trace.opening.filter(({ kind }) => kind === 'open').map(({ service }) => service);
    expect(opened.sort()).toEqual(['drafter', 'verifier']);
    // The matching branch becomes the next step's block, so there is no redraft.
    const followed = trace.kept.filter(({ branch }, i) => branch && i + 1 < trace.kept.length);
    expect(followed.length).toBeGreaterThan(0);
    for (const step of followed) {
      const next = trace.kept[trace.kept.indexOf(step) + 1];
      expect(step.branch?.accepted).toBe(step.stats.accepted);
      expect(next?.stats.redraftMicros).toBe(0);
    }
  });

  test('shows calls sent ahead from the previous answer on, dropped ones included', async () => {
    let drafts = 0;
    // Every fifth draft expects a token that the target will not pick.
    const spoil = ({ branches }: DraftOutput): DraftOutput =>
      ++drafts % 5 > 0
        ? { branches }
        : { branches: branches.map((b) => ({ ...b, tokens: b.tokens.map((token) => (token % 255) + 1) })) };
    const trace = await recorded(
      { checks: true, latencyMs: 40, draftLatencyMs: 8, spoil },
      { length: 3, budget: 16, mode: 'overlap', ahead: 2 },
    );
    const ahead = trace.kept.filter(({ stats }) => stats.aheadMicros > 0);
    expect(ahead.length).toBeGreaterThan(2);
    const all = trace.kept.flatMap(({ calls }) => calls);
    for (const service of ['verifier', 'drafter']) {
      const calls = all.filter((call) => call.service === service).sort((a, b) => a.start_us - b.start_us);
      for (const [i, { start_us }] of calls.entries()) {
        const before = calls[i - 1];
        // Calls follow one another, apart from delays of a busy machine.
        if (before) expect(start_us).toBeGreaterThanOrEqual(before.start_us + before.us - 20_000);
      }
    }
    for (const { stats, calls, branch } of trace.kept) {
      expect(calls.filter(({ kind }) => kind === 'verify')).toHaveLength(1);
      expect(calls.find(({ kind }) => kind === 'verify')?.run_us).toBe(stats.verifyRunMicros);
      if (branch) expect(branch.accepted).toBe(stats.accepted);
    }
    const drafted = trace.kept.filter(({ stats }) => stats.draftMicros > 0).length;
    expect(all.filter(({ kind }) => kind === 'draft').length).toBeGreaterThan(drafted);
  });

  test('contains neither text nor token ids', async () => {
    const trace = await recorded();
    for (const value of [trace, trace.detail(), perfettoTrace(trace)]) {
      const json = JSON.stringify(value, (_, v) => (typeof v === 'bigint' ? String(v) : v));
      expect(json).not.toMatch(/"(prompt|proposed|text|prediction)"/);
    }
  });

  test('records a draft that arrived too late', async () => {
    let runs = 0;
    // The prompt and some drafts are in time.
    const trace = await recorded({ delayMs: () => (++runs > 4 ? 200 : 0), draftTimeoutMs: 60 });
    expect(trace.finish).toBe('length');
    const failed = trace.kept.flatMap(({ calls }) => calls).filter(({ error }) => error !== undefined);
    expect(failed.length).toBeGreaterThan(0);
    for (const call of failed) expect(call).toMatchObject({ service: 'drafter', error: 'unavailable' });
  });

  test('is valid as a Chrome trace: slices of a track nest, and are named', async () => {
    const { traceEvents } = JSON.parse(JSON.stringify(perfettoTrace(await recorded())));
    const names = traceEvents.filter((e: { name: string }) => e.name === 'thread_name');
    expect(names.map((e: { args: { name: string } }) => e.args.name)).toEqual(['gateway', 'verifier', 'drafter']);
    const slices = traceEvents.filter((e: { ph: string }) => e.ph === 'X');
    const kinds = new Set(slices.map((e: { name: string }) => e.name.replace(/\d+/, 'N')));
    for (const kind of ['request', 'step N', 'open', 'verify', 'draft', 'run']) expect(kinds).toContain(kind);
    for (const { ts, dur, pid, tid } of slices) {
      for (const value of [ts, dur]) expect(Number.isInteger(value) && value >= 0).toBe(true);
      expect([pid, tid]).toEqual([1, expect.any(Number)]);
    }
    for (const tid of [2, 3]) {
      const open: number[] = [];
      const own = slices.filter((e: { tid: number }) => e.tid === tid);
      own.sort((a: Slice, b: Slice) => a.ts - b.ts || b.dur - a.dur);
      for (const { ts, dur } of own as Slice[]) {
        while (open.length > 0 && (open.at(-1) as number) <= ts) open.pop();
        if (open.length > 0) expect(ts + dur).toBeLessThanOrEqual(open.at(-1) as number);
        open.push(ts + dur);
      }
      expect(own.length).toBeGreaterThan(4);
    }
  });
});

interface Slice {
  readonly ts: number;
  readonly dur: number;
}

describe('the store', () => {
  const ended = (store: TraceStore, micros: number, finish: 'stop' | 'failed' = 'stop') => {
    const startedAt = performance.now();
    const trace = store.requestStarted({ request, model, startedAt, traceparent: '' });
    const end = finish === 'stop' ? { finish } : { error: new Error('failed') };
    trace.requestFinished({ at: startedAt + micros / 1000, tokens: 0, isAborted: false, ...end });
    return trace;
  };

  test('keeps recent traces, and in addition failed and slow ones', () => {
    const store = new TraceStore(3);
    const failed = ended(store, 1, 'failed');
    const slow = ended(store, 1e9);
    for (let i = 0; i < 200; i++) ended(store, 100 + i);
    const last = store.requestStarted({ request, model, startedAt: performance.now(), traceparent: '' });
    const ids = store.list().map(({ id }) => id);
    expect(ids[0]).toBe(last.id);
    expect(ids).toContain(failed.id);
    expect(ids).toContain(slow.id);
    expect(store.get(slow.id)).toBe(slow);
    expect(store.get('50')).toBeUndefined();
    for (let i = 0; i < 200; i++) ended(store, 5, 'failed');
    expect(store.list().length).toBeLessThanOrEqual(23);
    expect(store.get(failed.id)).toBeUndefined();
  });

  test('limits the steps of one request, and keeps the totals of all', async () => {
    const store = new TraceStore(3);
    const generator = new ScriptedGenerator({ contextLength: 4096 }, [store]);
    const steps = STEPS_KEPT + 88;
    generator.script = () => ({ steps: Array.from({ length: steps }, () => [1]) });
    await drain(generator, { ...request, maxTokens: 1000 });
    const [trace] = store.list();
    expect(trace?.kept).toHaveLength(STEPS_KEPT);
    expect(trace?.detail()).toMatchObject({ steps, completion_tokens: steps, steps_left_out: 88 });
  });

  test('records how a request ended', async () => {
    const store = new TraceStore(10);
    const generator = new ScriptedGenerator({}, [store]);
    const finishes = () => store.list().map(({ finish }) => finish);
    generator.script = () => ({ steps: [[1], [2]], endless: true });
    const steps = generator.generate(request, new AbortController().signal)[Symbol.asyncIterator]();
    await steps.next();
    expect(finishes()).toEqual(['running']);
    await steps.return(undefined);
    const gone = AbortSignal.timeout(20);
    generator.script = () => ({ steps: [[1]], endless: true, delayMillis: 5 });
    await expect(drain(generator, { ...request, maxTokens: 1e6 }, gone)).rejects.toThrow();
    generator.script = () => ({ steps: [[1]], error: new Error('secret') });
    await expect(drain(generator)).rejects.toThrow();
    expect(finishes().slice(0, 1)).toEqual(['failed']);
    expect(finishes().at(-1)).toBe('stop');
    const summaries = store.list().map((trace) => trace.summary());
    expect(summaries[0]).toMatchObject({ error: 'internal', request_id: 'req-7', tokens_per_step: 1 });
    expect(JSON.stringify(summaries)).not.toContain('secret');
  });
});

import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { checkBatchInvariance } from '../src/batch-invariance.ts';
import { openTargetEngine } from '../src/onnx/engine.ts';
import type { TargetEngine } from '../src/types.ts';

let engine: TargetEngine;
beforeAll(async () => {
  engine = await openTargetEngine({ dir: new URL('../../test/models/tiny', import.meta.url).pathname });
});
afterAll(() => engine.dispose());

/** Returns the engine with another `run`. */
function withRun(run: TargetEngine['run']): TargetEngine {
  return Object.assign(Object.create(engine), {
    info: engine.info,
    open: () => engine.open(),
    close: (sequence: number) => engine.close(sequence),
    run,
  });
}

test('the ONNX engine is batch-invariant, and the check closes its sequences', async () => {
  const { invariant, rows, complete } = await checkBatchInvariance(engine);
  expect([invariant, complete]).toEqual([true, true]);
  expect(rows).toBeGreaterThan(200);
  expect(engine.usage().sequences).toBe(0);
});

test('the check reports that a time limit ended it', async () => {
  expect(await checkBatchInvariance(engine, 0)).toEqual({ invariant: true, rows: 24, complete: false });
});

test('the check detects an engine whose last bit depends on the size of the run', async () => {
  const unsteady = withRun(async (slots) => {
    const result = await engine.run(slots);
    if (slots.length === 1) return result;
    for (const { logProbabilities } of result.outputs) {
      const bits = new Int32Array(logProbabilities.buffer, logProbabilities.byteOffset, logProbabilities.length);
      bits[0] = (bits[0] ?? 0) ^ 1;
    }
    return result;
  });
  expect((await checkBatchInvariance(unsteady)).invariant).toBe(false);
  expect((await checkBatchInvariance(unsteady, 0)).invariant).toBe(false);
});

test('a target whose graph writes into its caches is batch-invariant, and its results have the same bits', async () => {
  const inPlace = await openTargetEngine({ dir: new URL('../../test/models/tiny-in-place', import.meta.url).pathname });
  expect((await checkBatchInvariance(inPlace)).invariant).toBe(true);
  const tokens = Array.from({ length: 150 }, (_, i) => (i * 37) % 257);
  const picking = { sampling: { temperature: 1, topK: 0, topP: 1 }, uniforms: { seed: 5n, offset: 0 } };
  const results = [];
  for (const target of [engine, inPlace]) {
    const sequence = target.open();
    await target.run([{ sequence, at: 0, tokens: tokens.slice(0, 140) }]);
    await target.run([{ sequence, at: 140, tokens: tokens.slice(140, 149) }]);
    results.push((await target.run([{ sequence, at: 143, tokens: tokens.slice(143), ...picking }])).outputs);
  }
  expect(results[1]).toEqual(results[0]);
  await inPlace.dispose();
});

test('a check that the time limit ends has tried all chunk lengths', async () => {
  const counts: number[] = [];
  const counted = withRun((slots) => {
    counts.push(slots[0]?.tokens.length ?? 0);
    return engine.run(slots);
  });
  await checkBatchInvariance(counted, 0);
  expect(counts[0]).toBe(128);
  expect(new Set(counts.slice(1))).toEqual(new Set([9, 1, 2, 5]));
});

test('time that a busy machine makes the check wait counts only in part', async () => {
  const waiting = withRun(async (slots) => {
    const result = await engine.run(slots);
    await sleep(30);
    return result;
  });
  const started = performance.now();
  const { rows } = await checkBatchInvariance(waiting, 300);
  expect(performance.now() - started).toBeGreaterThan(400);
  expect(rows).toBeGreaterThan(24);
});

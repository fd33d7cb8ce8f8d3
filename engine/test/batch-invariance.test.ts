import { afterAll, beforeAll, expect, test } from 'vitest';
import { checkBatchInvariance } from '../src/batch-invariance.ts';
import { openTargetEngine } from '../src/onnx/engine.ts';
import type { TargetEngine } from '../src/types.ts';

let engine: TargetEngine;
beforeAll(async () => {
  engine = await openTargetEngine({ dir: new URL('../../test/models/tiny', import.meta.url).pathname });
});
afterAll(() => engine.dispose());

test('the ONNX engine is batch-invariant, and the check closes its sequences', async () => {
  const { invariant, rows } = await checkBatchInvariance(engine);
  expect(invariant).toBe(true);
  expect(rows).toBeGreaterThan(200);
  expect(engine.usage().sequences).toBe(0);
});

test('the check detects an engine whose last bit depends on the size of the run', async () => {
  const unsteady: TargetEngine = Object.assign(Object.create(engine), {
    info: engine.info,
    open: () => engine.open(),
    close: (sequence: number) => engine.close(sequence),
    async run(slots: Parameters<TargetEngine['run']>[0]) {
      const result = await engine.run(slots);
      if (slots.length === 1) return result;
      for (const { logProbabilities } of result.outputs) {
        const bits = new Int32Array(logProbabilities.buffer, logProbabilities.byteOffset, logProbabilities.length);
        bits[0] = (bits[0] ?? 0) ^ 1;
      }
      return result;
    },
  });
  expect((await checkBatchInvariance(unsteady)).invariant).toBe(false);
});

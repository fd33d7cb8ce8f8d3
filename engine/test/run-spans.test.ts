import { attribute, span, traceparentOf } from '@ptp/service-kit/spans';
import { expect, test } from 'vitest';
import { memoryTracing } from '../../service-kit/test/span-tree.ts';
import { recordRun } from '../src/run-spans.ts';

const milliseconds = ([seconds, nanos]: [number, number]) => seconds * 1e3 + nanos / 1e6;

test('spans of a served step show the queue and the run', async () => {
  const tracing = await memoryTracing();
  const step = span('step');
  recordRun(
    'ptp.verify.run',
    traceparentOf(step),
    { queueMicros: 2_000, runMicros: 5_000, batchSize: 3 },
    { [attribute.step]: 1 },
  );
  recordRun('ptp.verify.run', '', { queueMicros: 1, runMicros: 1, batchSize: 1 });
  const [queue, run, whole, ...others] = await tracing.finished();
  expect(others).toEqual([]);
  expect([queue, run, whole].map((recorded) => Math.round(milliseconds(recorded?.duration ?? [0, 0])))).toEqual([
    2, 5, 7,
  ]);
  expect(whole?.attributes).toEqual({
    'ptp.step': 1,
    'ptp.queue_us': 2_000,
    'ptp.run_us': 5_000,
    'ptp.batch.size': 3,
  });
  expect(whole?.parentSpanContext?.spanId).toBe(step.spanContext().spanId);
  expect(run?.parentSpanContext?.spanId).toBe(whole?.spanContext().spanId);
  await tracing.stop();
});

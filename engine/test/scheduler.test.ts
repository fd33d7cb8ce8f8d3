import { PtpError } from '@ptp/protocol/errors';
import { describe, expect, test } from 'vitest';
import { type RunStats, Scheduler } from '../src/scheduler.ts';
import type { RunResult } from '../src/types.ts';

const info = { maxSlots: 3 };

/** Returns an engine whose runs end when the test says so. The output of a slot is the slot itself. */
function controlled() {
  const runs: { slots: readonly number[]; finish: () => void; fail: (error: Error) => void }[] = [];
  const run = (slots: readonly number[]) =>
    new Promise<RunResult<number>>((resolve, reject) => {
      runs.push({ slots, finish: () => resolve({ outputs: [...slots], runMicros: 5 }), fail: reject });
    });
  return { runs, engine: { info, run } };
}

const { signal } = new AbortController();
const turn = () => new Promise((resolve) => setImmediate(resolve));
const limits = { batchTokens: 100, queue: 8 };

describe('Scheduler', () => {
  test('slots that wait when a run ends form the next batch, in order, within both limits', async () => {
    const { runs, engine } = controlled();
    const scheduler = new Scheduler<number, number>(engine, (slot) => slot, limits);
    const answers = [10, 40, 50, 20, 30, 1, 2].map((slot) => scheduler.submit(slot, signal));
    for (const expected of [[10, 40, 50], [20, 30, 1], [2]]) {
      await turn();
      expect(runs.at(-1)?.slots).toEqual(expected);
      runs.at(-1)?.finish();
    }
    const served = await Promise.all(answers);
    expect(served.map(({ output, batchSize }) => [output, batchSize])).toEqual([
      [10, 3],
      [40, 3],
      [50, 3],
      [20, 3],
      [30, 3],
      [1, 3],
      [2, 1],
    ]);
    expect(served.every(({ runMicros, queueMicros }) => runMicros === 5 && queueMicros >= 0)).toBe(true);
  });

  test('the observer gets the same statistics as the callers, with their spans', async () => {
    const { runs, engine } = controlled();
    const heard: RunStats[] = [];
    const scheduler = new Scheduler<number, number>(
      engine,
      (slot) => slot,
      limits,
      (stats) => heard.push(stats),
    );
    const answers = [scheduler.submit(10, signal, 'span of a'), scheduler.submit(20, signal)];
    await turn();
    runs[0]?.finish();
    const [a, b] = (await Promise.all(answers)).map(({ queueMicros }) => queueMicros);
    const slots = [{ queueMicros: a, traceparent: 'span of a' }, { queueMicros: b }];
    expect(heard).toEqual([{ slots, runMicros: 5, batchTokens: 30 }]);
  });

  test('a slot beyond the token limit runs alone; smaller ones behind it wait', async () => {
    const { runs, engine } = controlled();
    const scheduler = new Scheduler<number, number>(engine, (slot) => slot, limits);
    void scheduler.submit(300, signal);
    void scheduler.submit(1, signal);
    await turn();
    expect(runs[0]?.slots).toEqual([300]);
    runs[0]?.finish();
    await turn();
    expect(runs[1]?.slots).toEqual([1]);
  });

  test('a full queue rejects with resource_exhausted and serves the others', async () => {
    const { runs, engine } = controlled();
    const scheduler = new Scheduler<number, number>(engine, () => 1, { ...limits, queue: 2 });
    const running = scheduler.submit(1, signal);
    await turn();
    const waiting = [scheduler.submit(2, signal), scheduler.submit(3, signal)];
    expect(() => scheduler.submit(4, signal)).toThrow(expect.objectContaining({ code: 'resource_exhausted' }));
    runs[0]?.finish();
    await turn();
    runs[1]?.finish();
    expect((await Promise.all([running, ...waiting])).map((s) => s.output)).toEqual([1, 2, 3]);
  });

  test('a cancelled slot leaves the queue with the reason of its signal', async () => {
    const { runs, engine } = controlled();
    const scheduler = new Scheduler<number, number>(engine, () => 1, limits);
    void scheduler.submit(1, signal);
    await turn();
    const controller = new AbortController();
    const cancelled = scheduler.submit(2, controller.signal);
    const kept = scheduler.submit(3, signal);
    controller.abort(new PtpError('cancelled', 'gone'));
    runs[0]?.finish();
    await expect(cancelled).rejects.toThrow('gone');
    expect(runs[1]?.slots).toEqual([3]);
    runs[1]?.finish();
    expect((await kept).output).toBe(3);
  });

  test('if one slot makes a batch fail, only that slot fails', async () => {
    const run = async (slots: readonly number[]): Promise<RunResult<number>> => {
      if (slots.includes(13)) throw new Error('broken run');
      return { outputs: [...slots], runMicros: 5 };
    };
    const scheduler = new Scheduler<number, number>({ info, run }, (slot) => slot, limits);
    const [first, bad, last] = [10, 13, 20].map((slot) => scheduler.submit(slot, signal));
    await expect(bad).rejects.toThrow('broken run');
    expect((await first)?.output).toBe(10);
    expect((await last)?.output).toBe(20);
    expect((await scheduler.submit(7, signal)).output).toBe(7);
  });
});

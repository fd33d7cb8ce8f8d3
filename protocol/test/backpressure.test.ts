import { Writable } from 'node:stream';
import { expect, test } from 'vitest';
import { waitForDrain } from '../src/backpressure.ts';

/** Returns a stream whose buffer of 6 messages is full, and whose reader takes `millis` per message. */
function full(millis: number): Writable {
  const write = (_: unknown, __: unknown, done: () => void) => void setTimeout(done, millis);
  const stream = new Writable({ objectMode: true, highWaterMark: 6, write });
  for (let i = 0; i < 6; i++) stream.write(i);
  expect(stream.writableNeedDrain).toBe(true);
  return stream;
}

const never = new AbortController().signal;

test('waits for a slow reader as long as it keeps reading, even if emptying the buffer takes longer than the stall limit', async () => {
  const stream = full(100);
  await waitForDrain(stream, never, 250);
  expect(stream.writableLength).toBe(0);
});

test('gives up a reader that has stopped', async () => {
  const error = { code: 'deadline_exceeded', message: 'the client read no data for 50 ms' };
  await expect(waitForDrain(full(60_000), never, 50)).rejects.toMatchObject(error);
});

test('stops waiting when the call is aborted', async () => {
  const controller = new AbortController();
  setTimeout(() => controller.abort(new Error('gone')), 20);
  await expect(waitForDrain(full(60_000), controller.signal, 10_000)).rejects.toMatchObject({ name: 'AbortError' });
});

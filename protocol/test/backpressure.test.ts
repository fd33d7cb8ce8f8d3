import { Writable } from 'node:stream';
import { expect, test } from 'vitest';
import { waitForDrain } from '../src/backpressure.ts';

/** A stream of messages whose buffer of 6 is full, and is read at this pace. */
function full(millis: number): Writable {
  const write = (_: unknown, __: unknown, done: () => void) => void setTimeout(done, millis);
  const stream = new Writable({ objectMode: true, highWaterMark: 6, write });
  for (let i = 0; i < 6; i++) stream.write(i);
  expect(stream.writableNeedDrain).toBe(true);
  return stream;
}

const never = new AbortController().signal;

test('a reader is waited for as long as it goes on, also where the buffer takes longer to empty than it may stall', async () => {
  const stream = full(100);
  await waitForDrain(stream, never, 250);
  expect(stream.writableLength).toBe(0);
});

test('one that has stopped is not', async () => {
  const error = { code: 'deadline_exceeded', message: 'the client has not read for 50 ms' };
  await expect(waitForDrain(full(60_000), never, 50)).rejects.toMatchObject(error);
});

test('nor one whose call is aborted', async () => {
  const controller = new AbortController();
  setTimeout(() => controller.abort(new Error('gone')), 20);
  await expect(waitForDrain(full(60_000), controller.signal, 10_000)).rejects.toMatchObject({ name: 'AbortError' });
});

import { once } from 'node:events';
import type { Writable } from 'node:stream';
import { PtpError } from './errors.ts';

/**
 * Waits until what was written has been read, however slowly.
 *
 * @param stallMillis how long a reader may make no room at all
 * @throws PtpError `deadline_exceeded` if it makes none for so long, or for less than twice that where it made some before; an AbortError when the signal is aborted
 */
export async function drained(stream: Writable, signal: AbortSignal, stallMillis: number): Promise<void> {
  const stall = new AbortController();
  let left = stream.writableLength;
  const timer = setInterval(() => {
    if (stream.writableLength >= left) stall.abort();
    left = stream.writableLength;
  }, stallMillis);
  try {
    await once(stream, 'drain', { signal: AbortSignal.any([signal, stall.signal]) });
  } catch (error) {
    if (!stall.signal.aborted || signal.aborted) throw error;
    throw new PtpError('deadline_exceeded', `the client has made no room for ${stallMillis} ms`);
  } finally {
    clearInterval(timer);
  }
}

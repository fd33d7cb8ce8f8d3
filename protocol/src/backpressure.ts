import { once } from 'node:events';
import type { Writable } from 'node:stream';
import { PtpError } from './errors.ts';

/**
 * Waits until a slow reader has emptied the stream's buffer. A reader that keeps reading is never disconnected, however
 * slow it is.
 *
 * @param stallMillis time without a read after which the reader counts as stalled, in milliseconds. Detection may take
 *   up to twice this time.
 * @throws PtpError `deadline_exceeded` if the reader stalls; an AbortError when the signal is aborted
 */
export async function waitForDrain(stream: Writable, signal: AbortSignal, stallMillis: number): Promise<void> {
  const stall = new AbortController();
  let buffered = stream.writableLength;
  const timer = setInterval(() => {
    if (stream.writableLength >= buffered) stall.abort();
    buffered = stream.writableLength;
  }, stallMillis);
  try {
    await once(stream, 'drain', { signal: AbortSignal.any([signal, stall.signal]) });
  } catch (error) {
    if (!stall.signal.aborted || signal.aborted) throw error;
    throw new PtpError('deadline_exceeded', `the client read no data for ${stallMillis} ms`);
  } finally {
    clearInterval(timer);
  }
}

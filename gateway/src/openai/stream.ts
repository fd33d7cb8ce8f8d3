import { toPtpError } from '@ptp/protocol/errors';
import type { FastifyReply } from 'fastify';
import { EventStream } from '../http/sse.ts';
import type { ChoiceDelta, ResponseFigures } from './choices.ts';

/** Response in progress. */
export interface Run {
  readonly modelId: string;
  /** Number of choices. */
  readonly choices: number;
  readonly deltas: AsyncGenerator<ChoiceDelta>;
  /** Figures for the response. They are final once `deltas` has ended. */
  readonly figures: ResponseFigures;
  readonly stream: boolean;
  /** True if a stream ends with an event that contains the usage. */
  readonly includeUsage: boolean;
}

export interface ServerEvent {
  readonly name?: string;
  readonly data: object | '[DONE]';
}

/** Writes one response, as a stream of events or as one body. */
export interface ResponseWriter {
  /** Returns the events before the first delta. */
  start(): Iterable<ServerEvent>;
  /** Adds a delta and returns its events. The caller must iterate over all of them. */
  add(delta: ChoiceDelta): Iterable<ServerEvent>;
  /** Returns the events after the last delta. */
  end(): Iterable<ServerEvent>;
  /** Returns the last event of a stream that fails. */
  fail(error: unknown): ServerEvent;
  /** Returns the body of a response that is not streamed. Called after the last delta. */
  whole(): object;
}

/** Times of streams in milliseconds. */
export interface StreamSettings {
  /** Time after which a client that does not read is disconnected. */
  readonly stallMillis: number;
  /** Interval between comments before the first text. The headers are sent after the first interval. */
  readonly keepAliveMillis: number;
}

/** Generates a response and returns it as one body. */
export async function wholeResponse(writer: ResponseWriter, run: Run): Promise<object> {
  for await (const delta of run.deltas) for (const _ of writer.add(delta));
  return writer.whole();
}

/**
 * Generates a response and sends it as server-sent events. The headers follow the first piece of text, so that an
 * earlier error has an HTTP status, but they wait no longer than `keepAliveMillis`. An error after the headers becomes
 * the last event.
 *
 * @param onError function that is called with an error that occurs too late to set the HTTP status
 * @throws an error that occurs before the headers, so that the caller can set the HTTP status
 */
export async function streamResponse(
  writer: ResponseWriter,
  run: Run,
  reply: FastifyReply,
  { stallMillis, keepAliveMillis }: StreamSettings,
  onError: (error: unknown) => void,
): Promise<void> {
  const { deltas } = run;
  const first = deltas.next();
  await settlesWithin(first, keepAliveMillis);
  const stream = new EventStream(reply, stallMillis);
  const send = async (events: Iterable<ServerEvent>) => {
    for (const { data, name } of events) await stream.send(data, name);
  };
  try {
    while (!(await settlesWithin(first, keepAliveMillis))) await stream.keepAlive();
    let next = await first;
    await send(writer.start());
    for (; !next.done; next = await deltas.next()) await send(writer.add(next.value));
    await send(writer.end());
  } catch (error) {
    onError(error);
    if (toPtpError(error).code !== 'cancelled') await send([writer.fail(error)]).catch(() => {});
  } finally {
    await deltas.return(undefined);
    stream.end();
  }
}

/**
 * Waits for a promise, but at most for `millis`.
 *
 * @returns false if it is still pending then
 * @throws the reason if it is rejected
 */
async function settlesWithin(promise: Promise<unknown>, millis: number): Promise<boolean> {
  const { promise: late, resolve } = Promise.withResolvers<false>();
  const timer = setTimeout(resolve, millis, false);
  return Promise.race([promise.then(() => true), late]).finally(() => clearTimeout(timer));
}

import { toPtpError } from '@ptp/protocol/errors';
import type { FastifyReply } from 'fastify';
import { EventStream } from '../http/sse.ts';
import type { ChoiceDelta, Usage } from './choices.ts';

/** A response in progress. */
export interface Run {
  readonly modelId: string;
  /** Number of choices. */
  readonly choices: number;
  readonly deltas: AsyncGenerator<ChoiceDelta>;
  /** Complete when `deltas` has ended. */
  readonly usage: Usage;
  readonly stream: boolean;
  /** Sends the usage at the end of a stream. */
  readonly includeUsage: boolean;
}

/** A server-sent event. */
export interface ServerEvent {
  readonly name?: string;
  readonly data: object | '[DONE]';
}

/** Writes one response, as a stream of events or as a whole. */
export interface ResponseWriter {
  /** Events that precede the first delta. */
  start(): Iterable<ServerEvent>;
  /** Adds a delta. @returns its events, which must be read to the end */
  add(delta: ChoiceDelta): Iterable<ServerEvent>;
  /** Events that follow the last delta. */
  end(): Iterable<ServerEvent>;
  /** The last event of a stream that fails. */
  fail(error: unknown): ServerEvent;
  /** The body of a response that is not streamed, after the last delta. */
  whole(): object;
}

/** Generates a response and returns it as one body. */
export async function wholeResponse(writer: ResponseWriter, run: Run): Promise<object> {
  for await (const delta of run.deltas) for (const _ of writer.add(delta));
  return writer.whole();
}

/**
 * Generates a response and sends it as server-sent events. An error after the first piece of text becomes the last event.
 *
 * @param onError called with an error that comes too late for an HTTP status
 * @throws the error that precedes the first piece of text, so that it still gets its HTTP status
 */
export async function streamResponse(
  writer: ResponseWriter,
  run: Run,
  reply: FastifyReply,
  stallMillis: number,
  onError: (error: unknown) => void,
): Promise<void> {
  const { deltas } = run;
  let next = await deltas.next();
  const stream = new EventStream(reply, stallMillis);
  const send = async (events: Iterable<ServerEvent>) => {
    for (const { data, name } of events) await stream.send(data, name);
  };
  try {
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

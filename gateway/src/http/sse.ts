import type { OutgoingHttpHeaders, ServerResponse } from 'node:http';
import { waitForDrain } from '@ptp/protocol/backpressure';
import { PtpError, toPtpError } from '@ptp/protocol/errors';
import type { FastifyReply } from 'fastify';

/** Server-sent events with backpressure (https://html.spec.whatwg.org/multipage/server-sent-events.html). */
export class EventStream {
  readonly #response: ServerResponse;
  readonly #closed: AbortSignal;
  readonly #stallMillis: number;

  /**
   * Takes over the reply and sends its headers.
   *
   * @param stallMillis time in milliseconds after which a client that does not read is disconnected
   */
  constructor(reply: FastifyReply, stallMillis: number) {
    reply.hijack();
    this.#response = reply.raw;
    this.#closed = disconnectSignal(reply.raw);
    this.#stallMillis = stallMillis;
    reply.raw.writeHead(200, {
      ...(reply.getHeaders() as OutgoingHttpHeaders),
      'content-type': 'text/event-stream; charset=utf-8',
      'cache-control': 'no-cache',
      'x-accel-buffering': 'no',
    });
  }

  /**
   * Sends an event. Resolves once there is room for another event.
   *
   * @param name name of the event, if any
   * @throws PtpError `cancelled` if the client has disconnected, `deadline_exceeded` if it does not read
   */
  async send(data: object | '[DONE]', name?: string): Promise<void> {
    const text = typeof data === 'string' ? data : JSON.stringify(data);
    const head = name === undefined ? '' : `event: ${name}\n`;
    await this.#write(`${head}data: ${text}\n\n`);
  }

  /** Sends a comment, which clients ignore, so that proxies do not take the connection for idle. Throws like `send`. */
  async keepAlive(): Promise<void> {
    await this.#write(': keep-alive\n\n');
  }

  end(): void {
    this.#response.end();
  }

  async #write(text: string): Promise<void> {
    if (this.#response.destroyed) throw new PtpError('cancelled', 'the client has disconnected');
    if (this.#response.write(text)) return;
    try {
      await waitForDrain(this.#response, this.#closed, this.#stallMillis);
    } catch (error) {
      if (toPtpError(error).code === 'deadline_exceeded') this.#response.destroy();
      throw error;
    }
  }
}

/** Returns a signal that is aborted if the client disconnects before the response is complete. */
export function disconnectSignal(response: ServerResponse): AbortSignal {
  const controller = new AbortController();
  const onClose = () => {
    if (!response.writableFinished) controller.abort();
  };
  if (response.destroyed) onClose();
  else response.once('close', onClose);
  return controller.signal;
}

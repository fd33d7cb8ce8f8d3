import type { ServerResponse } from 'node:http';
import { PtpError } from '@ptp/protocol/errors';

/** Server-sent events on a response, at the pace of its reader (https://html.spec.whatwg.org/multipage/server-sent-events.html). */
export class EventStream {
  readonly #response: ServerResponse;
  readonly #stallMillis: number;

  /**
   * Writes the head of the response.
   *
   * @param stallMillis how long `send` waits for a reader that does not read
   */
  constructor(response: ServerResponse, stallMillis: number) {
    this.#response = response;
    this.#stallMillis = stallMillis;
    response.writeHead(200, {
      'content-type': 'text/event-stream; charset=utf-8',
      'cache-control': 'no-cache',
      'x-accel-buffering': 'no',
    });
  }

  /**
   * Sends one event, with a name if it has one, and returns when there is room for another.
   *
   * @throws PtpError `cancelled` if the client is gone, `deadline_exceeded` if it does not read
   */
  async send(data: object | '[DONE]', event?: string): Promise<void> {
    if (this.#response.destroyed) throw new PtpError('cancelled', 'the client has disconnected');
    const text = typeof data === 'string' ? data : JSON.stringify(data);
    const name = event === undefined ? '' : `event: ${event}\n`;
    if (!this.#response.write(`${name}data: ${text}\n\n`)) await this.#drained();
  }

  end(): void {
    this.#response.end();
  }

  #drained(): Promise<void> {
    const response = this.#response;
    return new Promise((resolve, reject) => {
      const settle = (error?: PtpError) => {
        clearTimeout(timer);
        response.off('drain', onDrain).off('close', onClose);
        error ? reject(error) : resolve();
      };
      const onDrain = () => settle();
      const onClose = () => settle(new PtpError('cancelled', 'the client has disconnected'));
      const onStall = () => {
        settle(new PtpError('deadline_exceeded', 'the client has stopped reading'));
        response.destroy();
      };
      const timer = setTimeout(onStall, this.#stallMillis);
      response.once('drain', onDrain).once('close', onClose);
    });
  }
}

/** Aborts when the client disconnects before the response is complete. */
export function disconnectSignal(response: ServerResponse): AbortSignal {
  const controller = new AbortController();
  const onClose = () => {
    if (!response.writableFinished) controller.abort();
  };
  if (response.destroyed) onClose();
  else response.once('close', onClose);
  return controller.signal;
}

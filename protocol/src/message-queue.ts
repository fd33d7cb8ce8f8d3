import type { Readable } from 'node:stream';
import { PtpError } from './errors.ts';

/** Maximum number of waiting messages. Beyond this number, HTTP/2 flow control slows the sender down. */
const CAPACITY = 32;

type Outcome = { readonly error?: PtpError };

/**
 * The receiving half of a stream. Messages wait here, in order, until they are received. A pending receive gets its
 * message in the event-loop turn in which the message arrives, whereas Node's own stream iterator would take several
 * turns.
 */
export class MessageQueue<T> {
  readonly #source: Readable;
  readonly #messages: T[] = [];
  #pending: { resolve(message: T | undefined): void; reject(error: PtpError): void } | undefined;
  #outcome: Outcome | undefined;

  /** Starts to read `source`, an object stream. The creator calls `end` or `fail` when the stream is over. */
  constructor(source: Readable) {
    this.#source = source;
    source.on('data', (message: T) => this.#accept(message));
  }

  /**
   * Returns the next message, or undefined after the last one.
   *
   * @throws PtpError the stream's error, after the messages that preceded it; `failed_precondition` if another receive
   *   is pending
   */
  receive(): Promise<T | undefined> {
    if (this.#messages.length > 0) {
      const message = this.#messages.shift();
      if (this.#messages.length === 0 && this.#source.isPaused()) this.#source.resume();
      return Promise.resolve(message);
    }
    if (this.#outcome) return this.#outcome.error ? Promise.reject(this.#outcome.error) : Promise.resolve(undefined);
    if (this.#pending) return Promise.reject(new PtpError('failed_precondition', 'another receive is pending'));
    return new Promise((resolve, reject) => {
      this.#pending = { resolve, reject };
    });
  }

  /** Yields messages until the queue ends. */
  async *[Symbol.asyncIterator](): AsyncGenerator<T, void, undefined> {
    for (let message = await this.receive(); message !== undefined; message = await this.receive()) yield message;
  }

  /**
   * Ends the queue once the messages in it have been received. Does nothing if the queue has already ended or failed.
   */
  end(): void {
    if (this.#settle({})) this.#pending?.resolve(undefined);
  }

  /**
   * Fails the queue once the messages in it have been received. Does nothing if the queue has already ended or failed.
   */
  fail(error: PtpError): void {
    while (this.#source.read() !== null); // This call emits, as 'data' events, the messages that flow control held back.
    if (this.#settle({ error })) this.#pending?.reject(error);
  }

  #settle(outcome: Outcome): boolean {
    if (this.#outcome) return false;
    this.#outcome = outcome;
    return true;
  }

  #accept(message: T): void {
    if (this.#outcome) return;
    const pending = this.#pending;
    if (pending) {
      this.#pending = undefined;
      pending.resolve(message);
      return;
    }
    this.#messages.push(message);
    if (this.#messages.length >= CAPACITY) this.#source.pause();
  }
}

import type { Readable } from 'node:stream';
import { PtpError } from './errors.ts';

/** Messages that may wait to be taken before the sender is slowed down through HTTP/2 flow control. */
const capacity = 32;

/**
 * The receiving half of a stream: messages wait here, in order, until they are taken. A message that somebody waits for
 * is handed over in the turn in which it arrives; Node's own stream iterator takes several turns.
 */
export class Inbox<T> {
  readonly #source: Readable;
  readonly #messages: T[] = [];
  #waiting: { resolve(message: T | undefined): void; reject(error: PtpError): void } | undefined;
  #outcome: { readonly error?: PtpError } | undefined;

  /** Starts to read `source`, an object stream; whoever creates the inbox says when it ends or fails. */
  constructor(source: Readable) {
    this.#source = source;
    source.on('data', (message: T) => this.#accept(message));
  }

  /**
   * The next message; undefined when the sender has said its last.
   *
   * @throws PtpError the stream's error, after the messages that came before it; `failed_precondition` if a receive is
   *   pending already
   */
  receive(): Promise<T | undefined> {
    if (this.#messages.length > 0) {
      const message = this.#messages.shift();
      if (this.#messages.length === 0 && this.#source.isPaused()) this.#source.resume();
      return Promise.resolve(message);
    }
    if (this.#outcome) return this.#outcome.error ? Promise.reject(this.#outcome.error) : Promise.resolve(undefined);
    if (this.#waiting) return Promise.reject(new PtpError('failed_precondition', 'a receive is pending already'));
    return new Promise((resolve, reject) => {
      this.#waiting = { resolve, reject };
    });
  }

  /** Receives until the end. */
  async *[Symbol.asyncIterator](): AsyncGenerator<T, void, undefined> {
    for (let message = await this.receive(); message !== undefined; message = await this.receive()) yield message;
  }

  /** No more messages will come. Later outcomes are ignored. */
  end(): void {
    if (this.#settle({})) this.#waiting?.resolve(undefined);
  }

  /** No more messages will come, because of `error`. Later outcomes are ignored. */
  fail(error: PtpError): void {
    while (this.#source.read() !== null); // what flow control held back comes as 'data'
    if (this.#settle({ error })) this.#waiting?.reject(error);
  }

  #settle(outcome: { readonly error?: PtpError }): boolean {
    if (this.#outcome) return false;
    this.#outcome = outcome;
    return true;
  }

  #accept(message: T): void {
    if (this.#outcome) return;
    const waiting = this.#waiting;
    if (waiting) {
      this.#waiting = undefined;
      waiting.resolve(message);
      return;
    }
    this.#messages.push(message);
    if (this.#messages.length >= capacity) this.#source.pause();
  }
}

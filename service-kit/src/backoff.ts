/** Exponential backoff: each delay is twice the one before, up to a limit. */
export class Backoff {
  readonly #firstMs: number;
  readonly #longestMs: number;
  #delayMs: number;

  constructor(firstMs: number, longestMs: number) {
    this.#firstMs = firstMs;
    this.#longestMs = longestMs;
    this.#delayMs = firstMs;
  }

  /** The current delay, milliseconds. */
  get delayMs(): number {
    return this.#delayMs;
  }

  /** @returns the current delay, milliseconds; doubles it for the next time */
  next(): number {
    const delay = this.#delayMs;
    this.#delayMs = Math.min(2 * delay, this.#longestMs);
    return delay;
  }

  /** Starts again at the first delay, after a success. */
  reset(): void {
    this.#delayMs = this.#firstMs;
  }
}

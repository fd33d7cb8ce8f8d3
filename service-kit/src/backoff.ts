/** Exponential backoff: each delay is twice the previous one, up to a limit. */
export class Backoff {
  readonly #firstMs: number;
  readonly #longestMs: number;
  #delayMs: number;

  constructor(firstMs: number, longestMs: number) {
    this.#firstMs = firstMs;
    this.#longestMs = longestMs;
    this.#delayMs = firstMs;
  }

  /** Current delay in milliseconds. */
  get delayMs(): number {
    return this.#delayMs;
  }

  /** Returns the current delay in milliseconds, and doubles the delay for the next call. */
  next(): number {
    const delay = this.#delayMs;
    this.#delayMs = Math.min(2 * delay, this.#longestMs);
    return delay;
  }

  /** Returns to the first delay; to be called after a success. */
  reset(): void {
    this.#delayMs = this.#firstMs;
  }
}

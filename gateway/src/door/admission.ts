import { PtpError } from '@ptp/core/errors.ts';

/** The door: counts the sequences that are being generated, and refuses rather than queues. */
export class Admission {
  readonly #limit: number;
  #running = 0;

  constructor(limit: number) {
    this.#limit = limit;
  }

  /**
   * Takes room for `sequences`.
   *
   * @returns gives it back
   * @throws PtpError `resource_exhausted` if there is no room now, `invalid_argument` if there never is
   */
  enter(sequences: number): () => void {
    if (sequences > this.#limit) {
      const message = `\`n\` times the number of prompts must be at most ${this.#limit}, got ${sequences}`;
      throw new PtpError('invalid_argument', message, { field: 'n' });
    }
    if (this.#running + sequences > this.#limit) {
      throw new PtpError('resource_exhausted', `overloaded: ${this.#running} of ${this.#limit} sequences are running`);
    }
    this.#running += sequences;
    return () => {
      this.#running -= sequences;
    };
  }

  /** Runs `work` with room for `sequences`; throws as `enter` does. */
  async run<T>(sequences: number, work: () => Promise<T>): Promise<T> {
    const leave = this.enter(sequences);
    try {
      return await work();
    } finally {
      leave();
    }
  }
}

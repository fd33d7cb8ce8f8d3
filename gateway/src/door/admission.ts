import { PtpError } from '@ptp/core/errors.ts';

/** How long a place is kept for who was refused one, milliseconds; longer than `Retry-After` tells them to wait. */
const KEPT_MS = 3000;

/**
 * The door: counts the sequences that are being generated, and refuses rather than queues.
 *
 * Fair between holders: who was refused and has less than an equal share of all places gets those that become free before anybody who
 * has theirs. While nobody was refused of late, one holder may have all.
 */
export class Admission {
  readonly #limit: number;
  readonly #now: () => number;
  #running = 0;
  /** Sequences of each holder that has some. */
  readonly #held = new Map<string, number>();
  /** Until when places are kept for those who were refused. */
  readonly #refused = new Map<string, number>();

  /** @param now milliseconds */
  constructor(limit: number, now: () => number = () => performance.now()) {
    this.#limit = limit;
    this.#now = now;
  }

  /**
   * Takes room for `sequences`.
   *
   * @param holder whose they are; one holder for all that have none
   * @returns gives it back
   * @throws PtpError `resource_exhausted` if there is no room now, `invalid_argument` if there never is
   */
  enter(sequences: number, holder = ''): () => void {
    if (sequences > this.#limit) {
      const message = `\`n\` times the number of prompts must be at most ${this.#limit}, got ${sequences}`;
      throw new PtpError('invalid_argument', message, { field: 'n' });
    }
    if (this.#running + sequences > this.#limit) {
      this.#refused.set(holder, this.#now() + KEPT_MS);
      throw new PtpError('resource_exhausted', `overloaded: ${this.#running} of ${this.#limit} sequences are running`);
    }
    this.#checkShare(sequences, holder);
    this.#refused.delete(holder);
    this.#add(sequences, holder);
    return () => this.#add(-sequences, holder);
  }

  /** Runs `work` with room for `sequences`; throws as `enter` does. */
  async run<T>(sequences: number, work: () => Promise<T>, holder?: string): Promise<T> {
    const leave = this.enter(sequences, holder);
    try {
      return await work();
    } finally {
      leave();
    }
  }

  #checkShare(sequences: number, holder: string): void {
    const now = this.#now();
    for (const [other, until] of this.#refused) if (until <= now) this.#refused.delete(other);
    const share = this.#limit / new Set([...this.#held.keys(), ...this.#refused.keys(), holder]).size;
    const own = this.#held.get(holder) ?? 0;
    if (own + sequences <= share) return;
    const kept = [...this.#refused.keys()].some((other) => other !== holder && (this.#held.get(other) ?? 0) < share);
    if (!kept) return;
    const message = `overloaded: ${own} of ${this.#limit} sequences are this key's, and others wait for their share`;
    throw new PtpError('resource_exhausted', message);
  }

  #add(sequences: number, holder: string): void {
    this.#running += sequences;
    const held = (this.#held.get(holder) ?? 0) + sequences;
    if (held > 0) this.#held.set(holder, held);
    else this.#held.delete(holder);
  }
}

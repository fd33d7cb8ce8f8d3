import { PtpError } from '@ptp/protocol/errors';

/** How long a place is kept for who was refused one, milliseconds; longer than `Retry-After` tells them to wait. */
const KEPT_MS = 3000;

/** Whose all sequences are that have no holder. */
const NOBODY = {};

/**
 * The door: counts the sequences that are being generated, and refuses rather than queues.
 *
 * Fair between holders: what becomes free goes to those who were refused and would not have more than an equal share of all places,
 * before anybody who would. While nobody was refused of late, one holder may have all.
 */
export class Admission {
  readonly #limit: number;
  readonly #now: () => number;
  #running = 0;
  /** Sequences of each holder that has some. */
  readonly #held = new Map<object, number>();
  /** Who was refused so many sequences, and until when places are kept for them. */
  readonly #refused = new Map<object, { readonly sequences: number; readonly until: number }>();

  /** @param now milliseconds */
  constructor(limit: number, now: () => number = () => performance.now()) {
    this.#limit = limit;
    this.#now = now;
  }

  /**
   * Takes room for `sequences`.
   *
   * @param holder whose they are, for example an API key's client
   * @returns gives it back
   * @throws PtpError `resource_exhausted` if there is no room now, `invalid_argument` if there never is
   */
  enter(sequences: number, holder: object = NOBODY): () => void {
    if (sequences > this.#limit) {
      const message = `\`n\` times the number of prompts must be at most ${this.#limit}, got ${sequences}`;
      throw new PtpError('invalid_argument', message, { field: 'n' });
    }
    if (this.#running + sequences > this.#limit) {
      this.#refused.set(holder, { sequences, until: this.#now() + KEPT_MS });
      throw new PtpError('resource_exhausted', `overloaded: ${this.#running} of ${this.#limit} sequences are running`);
    }
    this.#checkShare(sequences, holder);
    this.#refused.delete(holder);
    this.#add(sequences, holder);
    return () => this.#add(-sequences, holder);
  }

  /** Runs `work` with room for `sequences`; throws as `enter` does. */
  async run<T>(sequences: number, work: () => Promise<T>, holder?: object): Promise<T> {
    const leave = this.enter(sequences, holder);
    try {
      return await work();
    } finally {
      leave();
    }
  }

  #checkShare(sequences: number, holder: object): void {
    const now = this.#now();
    for (const [other, { until }] of this.#refused) if (until <= now) this.#refused.delete(other);
    const holders = new Set([...this.#held.keys(), ...this.#refused.keys(), holder]).size;
    const share = Math.max(1, Math.floor(this.#limit / holders));
    const heldBy = (who: object) => this.#held.get(who) ?? 0;
    const own = heldBy(holder);
    if (own + sequences <= share) return;
    const kept = [...this.#refused].some(
      ([other, asked]) => other !== holder && heldBy(other) + asked.sequences <= share,
    );
    if (!kept) return;
    const message = `overloaded: ${own} of ${this.#limit} sequences are this key's, and others wait for their share`;
    throw new PtpError('resource_exhausted', message);
  }

  #add(sequences: number, holder: object): void {
    this.#running += sequences;
    const held = (this.#held.get(holder) ?? 0) + sequences;
    if (held > 0) this.#held.set(holder, held);
    else this.#held.delete(holder);
  }
}

import { type ErrorCode, PtpError, toPtpError } from '@ptp/protocol/errors';

/** Duration in milliseconds of the reservation that a rejected client gets. Longer than its `Retry-After`. */
const RESERVED_MS = 3000;

/** Owner of requests that carry no API key. */
const ANONYMOUS = {};

/**
 * Limits the number of concurrent sequences. Requests beyond the limit are rejected, not queued.
 *
 * Capacity is shared fairly: freed capacity is reserved for owners that were rejected recently and hold less than an
 * equal share. Without such owners, a single owner may use the whole capacity.
 */
export class Admission {
  readonly #limit: number;
  readonly #now: () => number;
  #running = 0;
  /** Number of running sequences by owner. */
  readonly #held = new Map<object, number>();
  /** Reservations by owner: the number of rejected sequences, and the time at which the reservation ends. */
  readonly #rejected = new Map<object, { readonly sequences: number; readonly until: number }>();

  /** @param now function that returns the current time in milliseconds */
  constructor(limit: number, now: () => number = () => performance.now()) {
    this.#limit = limit;
    this.#now = now;
  }

  /**
   * Admits a number of sequences, and returns a function that releases them.
   *
   * @param owner owner of the sequences, for example the client of an API key
   * @throws PtpError `resource_exhausted` if the server is full, `invalid_argument` if `sequences` exceeds the limit
   *   even on an idle server
   */
  enter(sequences: number, owner: object = ANONYMOUS): () => void {
    if (sequences > this.#limit) {
      const message = `\`n\` times the number of prompts must be at most ${this.#limit}, got ${sequences}`;
      throw new PtpError('invalid_argument', message, { field: 'n' });
    }
    if (this.#running + sequences > this.#limit) {
      this.#rejected.set(owner, { sequences, until: this.#now() + RESERVED_MS });
      throw new PtpError('resource_exhausted', `overloaded: ${this.#running} of ${this.#limit} sequences are running`);
    }
    this.#checkShare(sequences, owner);
    this.#rejected.delete(owner);
    this.#add(sequences, owner);
    return () => this.#add(-sequences, owner);
  }

  #checkShare(sequences: number, owner: object): void {
    const now = this.#now();
    for (const [other, { until }] of this.#rejected) if (until <= now) this.#rejected.delete(other);
    const owners = new Set([...this.#held.keys(), ...this.#rejected.keys(), owner]).size;
    const share = Math.max(1, Math.floor(this.#limit / owners));
    const heldBy = (each: object) => this.#held.get(each) ?? 0;
    const own = heldBy(owner);
    if (own + sequences <= share) return;
    const reserved = [...this.#rejected].some(
      ([other, wanted]) => other !== owner && heldBy(other) + wanted.sequences <= share,
    );
    if (!reserved) return;
    const message = `overloaded: this key runs ${own} of ${this.#limit} sequences, and other keys are waiting for their share`;
    throw new PtpError('resource_exhausted', message);
  }

  #add(sequences: number, owner: object): void {
    this.#running += sequences;
    const held = (this.#held.get(owner) ?? 0) + sequences;
    if (held > 0) this.#held.set(owner, held);
    else this.#held.delete(owner);
  }
}

/**
 * Admits sequences under both the client's and the server's limit, and returns a function that releases them from both.
 * The client's limit is checked first, so that a client at its own limit gets no reservation.
 *
 * @throws PtpError see {@link Admission.enter}
 */
export function admit(
  server: Admission,
  client: { readonly admission: Admission } | undefined,
  sequences: number,
): () => void {
  const leaveOwn = client?.admission.enter(sequences);
  try {
    const leave = server.enter(sequences, client);
    return () => {
      leave();
      leaveOwn?.();
    };
  } catch (error) {
    leaveOwn?.();
    throw error;
  }
}

/** Called for each request that is rejected because capacity or a valid key is missing. */
export type OnRejection = (code: ErrorCode) => void;

/** Codes of the errors that {@link reportRejection} reports. */
export const REPORTED_REJECTIONS: readonly ErrorCode[] = ['resource_exhausted', 'unauthenticated'];

/** Calls `onRejection` if the error means that capacity or a valid key is missing. */
export function reportRejection(error: unknown, onRejection: OnRejection | undefined): void {
  const { code } = toPtpError(error);
  if (REPORTED_REJECTIONS.includes(code)) onRejection?.(code);
}

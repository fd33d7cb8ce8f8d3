import type { Logger } from '@ptp/service-kit/log';

/** Minimum timeout in milliseconds for `auto`, because garbage collection can delay the calls of a fast drafter. */
const SHORTEST_MS = 500;
/** Maximum timeout in milliseconds for `auto`. It also applies until a verify call has been measured. */
const LONGEST_MS = 10_000;
/** Weight of a new duration in the mean. */
const WEIGHT = 1 / 8;
/** Minimum time in milliseconds between two log records about late drafts. */
const LOG_MS = 600_000;

export interface DraftDeadlineOptions {
  /** Timeout in milliseconds, or `auto` to derive it from the duration of verify calls. */
  readonly timeoutMs: number | 'auto';
  /** Maximum number of drafted tokens in a step. */
  readonly draftLength: number;
  readonly logger: Pick<Logger, 'warn'>;
}

/**
 * Timeout of draft calls, which all streams share. A draft of L tokens saves at most L verify calls. A draft that takes
 * longer than L verify calls therefore costs more time than it saves, even if all its tokens are accepted.
 */
export class DraftDeadline {
  readonly #options: DraftDeadlineOptions;
  /** Mean duration of a verify call in milliseconds. */
  #verifyMs: number | undefined;
  /** Number of late drafts since the last log record, and the time of that record. */
  #late = 0;
  #loggedAt = Number.NEGATIVE_INFINITY;
  /** Duration in milliseconds of the last late draft that has arrived. */
  #lateMs: number | undefined;

  constructor(options: DraftDeadlineOptions) {
    this.#options = options;
  }

  /** Timeout of a draft call in milliseconds. */
  get milliseconds(): number {
    const { timeoutMs, draftLength } = this.#options;
    if (timeoutMs !== 'auto') return timeoutMs;
    const saved = this.#verifyMs === undefined ? LONGEST_MS : draftLength * this.#verifyMs;
    return Math.round(Math.min(Math.max(saved, SHORTEST_MS), LONGEST_MS));
  }

  /** Maximum time in milliseconds to wait for the drafter to read a prompt after the verifier has read the prompt. */
  get openingMs(): number {
    const { timeoutMs } = this.#options;
    return timeoutMs === 'auto' ? SHORTEST_MS : timeoutMs;
  }

  /** Records the duration of a verify call. */
  verified(micros: number): void {
    const ms = micros / 1000;
    this.#verifyMs = this.#verifyMs === undefined ? ms : this.#verifyMs + WEIGHT * (ms - this.#verifyMs);
  }

  /** Records that a draft was dropped because it was late. At most one log record per LOG_MS counts all late drafts. */
  late(now = performance.now()): void {
    this.#late++;
    if (now - this.#loggedAt < LOG_MS) return;
    this.#options.logger.warn(
      {
        late: this.#late,
        timeout_ms: this.milliseconds,
        ...(this.#lateMs !== undefined && { draft_ms: Math.round(this.#lateMs) }),
        ...(this.#verifyMs !== undefined && { verify_ms: Math.round(this.#verifyMs) }),
      },
      'drafts were late and were dropped: give the drafter more cores or a smaller model, or set PTP_DRAFT_MODE=plain',
    );
    this.#loggedAt = now;
    this.#late = 0;
  }

  /** Records the duration of a late draft that has arrived. */
  arrived(micros: number): void {
    this.#lateMs = micros / 1000;
  }
}

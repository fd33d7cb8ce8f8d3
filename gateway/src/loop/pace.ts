/**
 * - `overlap`: the next block is drafted while this one is verified, for its likely outcomes; when none fits, it is drafted anew if that pays.
 * - `sequential`: a block is drafted, then verified.
 * - `plain`: nothing is drafted.
 */
export type Mode = 'overlap' | 'sequential' | 'plain';

export const MODES: readonly Mode[] = ['overlap', 'sequential', 'plain'];

/** Share by which older steps of the mode in use count less with each new one; of another one, which is tried seldom. */
const FORGET = 0.02;
const FORGET_TRIED = 0.35;
/** Steps of a mode before its rate is believed. */
const WARM_UP = 12;
/** Steps between two trials of another mode: few at first and after a change, then twice as many each time. */
const [SHORTEST, LONGEST] = [25, 400];
/** Steps of a trial; as all steps here, so many for each open sequence. */
const TRIAL = 4;
/** A mode must be so many times as fast as the present one to take its place, so that noise does not swing them. */
const BETTER = 1.05;
/** When the rate of the mode in use has changed by this factor since the last trial, the others may have changed too. */
const CHANGED = 1.25;

/** Tokens and time of one mode's steps. */
interface Tally {
  steps: number;
  /** Steps, older ones fading; the others fade alike. */
  weight: number;
  tokens: number;
  micros: number;
}

/**
 * Which mode gives the most tokens per time: a matter of the machine (whether drafter and verifier have cores of their own) and of
 * load, so that all sequences of a gateway try the same one at the same time and share what they find.
 */
export class Pace {
  readonly #tallies: Readonly<Record<Mode, Tally>> = {
    overlap: { steps: 0, weight: 0, tokens: 0, micros: 0 },
    sequential: { steps: 0, weight: 0, tokens: 0, micros: 0 },
    plain: { steps: 0, weight: 0, tokens: 0, micros: 0 },
  };
  #best: Mode = 'overlap';
  #sequences = 0;
  /** Steps since the last trial began, steps between this one and the next, and trials so far. */
  #steps = 0;
  #period = SHORTEST;
  #trials = 0;
  /** Rate of the mode in use when the last trial began. */
  #then = 0;

  /** A sequence begins or ends: trials are as many steps longer as there are sequences, so that each takes part. */
  enter(): void {
    this.#sequences++;
  }

  leave(): void {
    this.#sequences--;
  }

  /** Sequences now, at least 1. */
  get open(): number {
    return Math.max(1, this.#sequences);
  }

  /** The mode of the next step: the fastest, now and then another one for a few steps, so that a change is noticed. */
  next(): { mode: Mode; reason: 'warm-up' | 'trial' | 'fastest' } {
    const unknown = MODES.find((mode) => this.#tallies[mode].steps < WARM_UP);
    if (unknown) return { mode: unknown, reason: 'warm-up' };
    const { open } = this;
    const better = MODES.find((mode) => this.rate(mode) > BETTER * this.rate(this.#best));
    if (better) {
      this.#best = better;
      this.#period = SHORTEST;
      this.#steps = TRIAL * open;
    }
    if (this.#steps++ < TRIAL * open) return { mode: this.#tried(), reason: 'trial' };
    const now = this.rate(this.#best);
    const changed = Math.max(now, this.#then) > CHANGED * Math.min(now, this.#then);
    if (this.#steps >= (changed ? SHORTEST : this.#period) * open) {
      this.#steps = 0;
      this.#trials++;
      this.#period = changed ? SHORTEST : Math.min(2 * this.#period, LONGEST);
      this.#then = now;
    }
    return { mode: this.#best, reason: 'fastest' };
  }

  #tried(): Mode {
    const others = MODES.filter((mode) => mode !== this.#best);
    return others[this.#trials % others.length] as Mode;
  }

  /** Tokens per microsecond of a mode; 0 before any step. */
  rate(mode: Mode): number {
    const { tokens, micros } = this.#tallies[mode];
    return micros > 0 ? tokens / micros : 0;
  }

  /** Mean tokens and microseconds of a mode's steps; undefined before any. */
  typical(mode: Mode): { tokens: number; micros: number } | undefined {
    const { weight, tokens, micros } = this.#tallies[mode];
    return weight > 0 ? { tokens: tokens / weight, micros: micros / weight } : undefined;
  }

  /**
   * Learns from a step that followed one of the same mode: the first after a change has the other mode's block.
   *
   * @param tokens that the step was expected to commit, which swings less than what it did
   */
  observe(mode: Mode, tokens: number, micros: number): void {
    const tally = this.#tallies[mode];
    const settled = mode === this.#best || tally.steps < WARM_UP;
    // so many sequences' steps tell of the same time
    const keep = 1 - (settled ? FORGET : FORGET_TRIED) / this.open;
    tally.steps++;
    tally.weight = keep * tally.weight + 1;
    tally.tokens = keep * tally.tokens + tokens;
    tally.micros = keep * tally.micros + micros;
  }
}

/**
 * Chooses how each step drafts. Block length and budget are settings; the mode is chosen by what is measured, over all requests of the
 * gateway, because which one is fastest depends on the machine (whether drafter and verifier have cores of their own), on load, and
 * on how often drafts come true.
 */

/** Limits from the settings. */
export interface DraftLimits {
  /** Longest block under verification, in tokens. */
  readonly length: number;
  /** Tokens over all branches of one draft call. */
  readonly budget: number;
  /** `auto` for what measures fastest. */
  readonly mode: Mode | 'auto';
}

/**
 * - `overlap`: the next block is drafted while this one is verified, for every outcome; when none fits, it is drafted anew.
 * - `sequential`: a block is drafted, then verified.
 * - `plain`: nothing is drafted.
 */
export type Mode = 'overlap' | 'sequential' | 'plain';

const MODES: readonly Mode[] = ['overlap', 'sequential', 'plain'];

/** Share by which a mode's older steps count less with each new one. */
const FORGET = 0.01;
/** Steps of a mode before its rate is believed; then steps between two trials of another mode, and the length of a trial. */
const WARM_UP = 12;
const PERIOD = 200;
const TRIAL = 3;

/** Tokens and time of one mode, older steps fading. */
interface Tally {
  steps: number;
  tokens: number;
  micros: number;
}

/** Which mode gives the most tokens per time. Shared by all sequences. */
export class Pace {
  readonly #tallies: Readonly<Record<Mode, Tally>> = {
    overlap: { steps: 0, tokens: 0, micros: 0 },
    sequential: { steps: 0, tokens: 0, micros: 0 },
    plain: { steps: 0, tokens: 0, micros: 0 },
  };
  #steps = 0;

  /** The mode of the next step: the fastest, now and then another one for a few steps, so that a change is noticed. */
  next(): Mode {
    const unknown = MODES.find((mode) => this.#tallies[mode].steps < WARM_UP);
    if (unknown) return unknown;
    const best = MODES.reduce((a, b) => (this.rate(b) > this.rate(a) ? b : a));
    const trial = this.#steps++ % PERIOD;
    if (trial >= TRIAL) return best;
    const others = MODES.filter((mode) => mode !== best);
    return others[Math.floor(this.#steps / PERIOD) % others.length] ?? best;
  }

  /** Tokens per microsecond of a mode; 0 before any step. */
  rate(mode: Mode): number {
    const { tokens, micros } = this.#tallies[mode];
    return micros > 0 ? tokens / micros : 0;
  }

  /** Learns from a step that followed one of the same mode: the first after a change has the other mode's block. */
  observe(mode: Mode, tokens: number, micros: number): void {
    const tally = this.#tallies[mode];
    tally.steps++;
    tally.tokens += tokens - FORGET * tally.tokens;
    tally.micros += micros - FORGET * tally.micros;
  }
}

/** One sequence's view. */
export class Controller {
  readonly #limits: DraftLimits;
  readonly #pace: Pace;
  #last: Mode | undefined;

  constructor(limits: DraftLimits, pace: Pace) {
    this.#limits = limits;
    this.#pace = pace;
  }

  /** Longest block that fits what is still wanted: a step commits one token more than it accepts. */
  blockLength(wanted: number): number {
    return Math.max(0, Math.min(this.#limits.length, wanted - 1));
  }

  /** Limits for a call whose branches start with the token that the verifier says anyway. */
  get overlapPlan(): { budget: number; maxBranchLength: number } {
    return { budget: this.#limits.budget, maxBranchLength: this.#limits.length + 1 };
  }

  /** Limits for a call with nothing under verification. */
  get freshPlan(): { budget: number; maxBranchLength: number } {
    return { budget: this.#limits.length, maxBranchLength: this.#limits.length };
  }

  mode(): Mode {
    return this.#limits.mode === 'auto' ? this.#pace.next() : this.#limits.mode;
  }

  /** @param micros the whole step's */
  observe(mode: Mode, tokens: number, micros: number): void {
    if (mode === this.#last) this.#pace.observe(mode, tokens, micros);
    this.#last = mode;
  }
}

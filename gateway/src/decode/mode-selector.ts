import { DecayedSums } from './cost-model.ts';
import { MODES, type Mode } from './types.ts';

/** Share by which each new step of a mode reduces the weight of the mode's older steps. */
const FORGET = 0.02;
/** Share by which each step of the mode in use reduces the weight of the other modes' steps. */
const AGE = 0.002;
/** Number of steps at the start of each mode that are ignored, because just-in-time compilers warm up. */
const COLD = 6;
/** Number of steps of each mode after which its rate is used. */
const WARM_UP = 12;
/** Number of steps of a trial per open sequence. */
const TRIAL = 8;
/** Maximum share of time that trials of one mode may cost. The slower the mode, the rarer its trials. */
const COST = 0.005;
/** Minimum and maximum number of steps between two trials of a mode. */
const [SHORTEST, LONGEST] = [50, 1600];
/**
 * Factor by which a mode must be faster to replace the current one. The difference must also exceed the standard error.
 */
const BETTER = 1.05;
/** Minimum relative standard error of the rate of one step, because neighbouring steps of a text are similar. */
const SWING = 0.25;
/**
 * Factor by which the rate of the current mode must change before the rates of the other modes count as stale, and the
 * weight that the steps of the other modes then keep.
 */
const CHANGED = 1.25;
const STALE = 0.2;

/** Decayed tokens (x) and times (y) of the steps of one mode. */
class ModeStats extends DecayedSums {
  /** Number of all steps, including those that do not count. */
  steps = 0;

  /** Number of tokens per microsecond, or 0 before the first step. */
  get rate(): number {
    return this.y > 0 ? this.x / this.y : 0;
  }

  /** Variance of the rate, which is a ratio estimator (Cochran 1977, section 6.4). */
  get variance(): number {
    const { rate, weight } = this;
    const squares = this.xx - 2 * rate * this.xy + rate * rate * this.yy;
    return weight > 0 ? Math.max(squares / this.y ** 2, (SWING * rate) ** 2 / weight) : 0;
  }

  /** Mean number of tokens and microseconds per step. Undefined before the first step. */
  get typical(): { tokens: number; micros: number } | undefined {
    const { weight } = this;
    return weight > 0 ? { tokens: this.x / weight, micros: this.y / weight } : undefined;
  }
}

/**
 * Selects the mode with the most tokens per time. The fastest mode depends on the machine (the drafter and the verifier
 * may share cores) and on its load. Therefore all sequences of a gateway try the same mode at the same time and share
 * the result.
 */
export class ModeSelector {
  readonly stats: Readonly<Record<Mode, ModeStats>> = {
    overlap: new ModeStats(),
    sequential: new ModeStats(),
    plain: new ModeStats(),
  };
  /** Number of steps since each mode was in use. */
  readonly #since: Record<Mode, number> = { overlap: 0, sequential: 0, plain: 0 };
  #best: Mode = 'overlap';
  /** The mode on trial, and the remaining steps of the trial. */
  #tried: Mode = 'plain';
  #left = 0;
  #sequences = 0;
  /** Reference rate of the current mode, used to detect changes. */
  #then = 0;

  /**
   * Must be called when a sequence starts. Trials are longer when more sequences are open, so that every sequence takes
   * part.
   */
  enter(): void {
    this.#sequences++;
  }

  /** Must be called when a sequence has ended. */
  leave(): void {
    this.#sequences--;
  }

  /** Number of open sequences, at least 1. */
  get open(): number {
    return Math.max(1, this.#sequences);
  }

  /**
   * Returns the mode of the next step. This is the fastest mode, or occasionally a slower one for a few steps, to notice
   * changes.
   */
  next(): { mode: Mode; reason: 'warm-up' | 'trial' | 'fastest' } {
    const fewer = (steps: number) => MODES.find((mode) => this.stats[mode].steps < steps);
    const unknown = fewer(COLD) ?? fewer(WARM_UP);
    if (unknown) return { mode: unknown, reason: 'warm-up' };
    this.#takeBetter();
    if (this.#left === 0) this.#beginTrial();
    const onTrial = this.#left > 0;
    const mode = onTrial ? this.#tried : this.#best;
    for (const each of MODES) this.#since[each] = each === mode ? 0 : this.#since[each] + 1;
    if (onTrial) this.#left--;
    return { mode, reason: onTrial ? 'trial' : 'fastest' };
  }

  #takeBetter(): void {
    const present = this.stats[this.#best];
    const better = MODES.find((mode) => {
      const { rate, variance } = this.stats[mode];
      const chance = Math.sqrt(variance + present.variance);
      return rate - present.rate > Math.max((BETTER - 1) * present.rate, chance);
    });
    if (!better) return;
    this.#best = better;
    this.#left = 0;
    this.#then = this.stats[better].rate;
  }

  #beginTrial(): void {
    const { open } = this;
    const others = MODES.filter((mode) => mode !== this.#best);
    const now = this.stats[this.#best].rate;
    if (Math.max(now, this.#then) > CHANGED * Math.min(now, this.#then)) {
      for (const mode of others) this.stats[mode].fade(STALE);
      this.#then = now;
    }
    const due = others.find((mode) => this.#since[mode] >= this.#between(mode) * open);
    if (due) [this.#tried, this.#left] = [due, TRIAL * open];
  }

  /**
   * Returns the number of steps per open sequence between two trials of a mode, from SHORTEST to LONGEST. It is longer
   * the more (decayed) steps the mode's statistics contain and the more time a trial costs.
   */
  #between(mode: Mode): number {
    const [present, other] = [this.stats[this.#best], this.stats[mode]];
    if (!present.typical || !other.typical) return SHORTEST;
    // The time lost compared with generating the same tokens in the current mode.
    const lost = TRIAL * Math.max(0, other.typical.micros - other.typical.tokens / present.rate);
    return Math.min(
      LONGEST,
      Math.max(SHORTEST, (4 * other.weight) / this.open, lost / (COST * present.typical.micros)),
    );
  }

  /**
   * Records a step.
   *
   * @param tokens expected number of committed tokens, which varies less than the actual number
   */
  observe(mode: Mode, tokens: number, micros: number): void {
    const stats = this.stats[mode];
    if (stats.steps++ < COLD) return;
    // All open sequences report on the same period of time, so each step gets a share of the decay.
    const { open } = this;
    stats.add(tokens, micros, 1 - FORGET / open);
    if (mode !== this.#best) return;
    for (const other of MODES) if (other !== mode) this.stats[other].fade(1 - AGE / open);
  }
}

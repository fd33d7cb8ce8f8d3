/**
 * Chooses what to draft. This is the small version: block length and budget are settings, and only one choice is measured, whether
 * a draft that missed is drafted again before the next verify (`redraft`) or the next verify goes without one.
 */

/** Limits from the settings. */
export interface DraftLimits {
  /** Longest block under verification, in tokens. */
  readonly length: number;
  /** Tokens over all branches of one draft call. */
  readonly budget: number;
}

/** How a step starts when the branch for the actual outcome is missing or wrong from its first token. */
export type AfterMiss = 'redraft' | 'empty';

/** Share of a new measurement in a running mean. */
const NEW_SHARE = 0.15;

/** One sequence's running means; times in microseconds, 0 until measured. */
export class Controller {
  readonly #limits: DraftLimits;
  /** A draft call beside a verify, and one before it. */
  #draft = 0;
  #redraft = 0;
  #verifyBlock = 0;
  #verifyEmpty = 0;
  /** Tokens committed by a step whose block was a branch of the step before, and by one whose block was drafted just before it. */
  #overlapped = 2;
  #redrafted = 2;
  /** Share of steps that left a block of use. */
  #hits = 0.5;

  constructor(limits: DraftLimits) {
    this.#limits = limits;
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

  /**
   * Compares tokens per time until there is a block again. Redraft: a draft, then a step with what it brought. Empty: a step of one
   * token that drafts meanwhile, and after it, with the chance that this hits, a step with a branch. Near a tie redrafting wins: it
   * makes fewer target calls.
   */
  afterMiss(): AfterMiss {
    if (this.#draft === 0 || this.#redraft === 0 || this.#verifyBlock === 0) return 'redraft';
    const block = Math.max(this.#verifyBlock, this.#draft);
    const empty = Math.max(this.#verifyEmpty || this.#verifyBlock, this.#draft);
    const redraft = this.#redrafted / (this.#redraft + block);
    const skip = (1 + this.#hits * this.#overlapped) / (empty + this.#hits * block);
    return redraft > TIE * skip ? 'redraft' : 'empty';
  }

  /** Learns whether a step left a block of use to the next. */
  observeBranch(hit: boolean): void {
    this.#hits = mean(this.#hits, hit ? 1 : 0);
  }

  /** Learns from a step. */
  observe(step: {
    drafted: number;
    committed: number;
    draftMicros: number;
    redraftMicros: number;
    verifyMicros: number;
  }): void {
    if (step.draftMicros > 0) this.#draft = measured(this.#draft, step.draftMicros);
    if (step.redraftMicros > 0) this.#redraft = measured(this.#redraft, step.redraftMicros);
    if (step.drafted === 0) {
      this.#verifyEmpty = measured(this.#verifyEmpty, step.verifyMicros);
      return;
    }
    this.#verifyBlock = measured(this.#verifyBlock, step.verifyMicros);
    if (step.redraftMicros > 0) this.#redrafted = mean(this.#redrafted, step.committed);
    else this.#overlapped = mean(this.#overlapped, step.committed);
  }
}

/** Redrafting is chosen down to this share of the other choice's speed. */
const TIE = 0.95;

const mean = (old: number, value: number): number => old + NEW_SHARE * (value - old);
const measured = (old: number, value: number): number => (old === 0 ? value : mean(old, value));

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

/** One sequence's running means; times in microseconds. */
export class Controller {
  readonly #limits: DraftLimits;
  #draft = 0;
  #verifyBlock = 0;
  #verifyEmpty = 0;
  /** Tokens committed by a step with a block, and by one whose block was drafted just before it. */
  #overlapped = 2;
  #redrafted = 2;

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
   * Compares tokens per time. Redraft: one draft, then a verify that overlaps with the next draft. Empty: a verify of nothing that
   * overlaps with a draft, and then a step with the block drafted meanwhile.
   */
  afterMiss(): AfterMiss {
    if (this.#draft === 0 || this.#verifyBlock === 0) return 'redraft';
    const block = Math.max(this.#verifyBlock, this.#draft);
    const empty = Math.max(this.#verifyEmpty || this.#verifyBlock / 2, this.#draft);
    const redraft = this.#redrafted / (this.#draft + block);
    const skip = (1 + this.#overlapped) / (empty + block);
    return redraft > skip ? 'redraft' : 'empty';
  }

  /** Learns from a step. */
  observe(step: {
    drafted: number;
    committed: number;
    draftMicros: number;
    redraftMicros: number;
    verifyMicros: number;
  }): void {
    if (step.draftMicros > 0) this.#draft = mean(this.#draft, step.draftMicros);
    if (step.drafted === 0) this.#verifyEmpty = mean(this.#verifyEmpty, step.verifyMicros);
    else {
      this.#verifyBlock = mean(this.#verifyBlock, step.verifyMicros);
      if (step.redraftMicros > 0) this.#redrafted = mean(this.#redrafted, step.committed);
      else this.#overlapped = mean(this.#overlapped, step.committed);
    }
  }
}

function mean(old: number, value: number): number {
  return old === 0 ? value : old + NEW_SHARE * (value - old);
}

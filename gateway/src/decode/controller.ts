import { type Block, cut, type ProposalSource } from './block.ts';
import { AcceptanceCurve, Calibration, LinearCost, VerifyCost, type VerifyTime } from './cost-model.ts';
import { MODES, type Mode, ModeSelector } from './mode-selector.ts';

/**
 * Chooses how each step drafts, so that tokens per time are most. One rule for all choices of one step: a token is worth the time in
 * which the sequence makes one anyway, 1 / rate; what is expected to bring fewer tokens than its time is worth is left out. Times and
 * chances are measured, never assumed (costs.ts); the mode is all sequences' common choice (pace.ts), unless one's drafts
 * fail, or come true, so often that another one is better for it.
 */

/** Default `budget` of the limits. */
export const DRAFT_BUDGET = 16;
/** Default `ahead` of the gateway. */
export const STEPS_AHEAD = 4;

/** Limits from the settings, or from the request. */
export interface DraftLimits {
  /** Longest block under verification, in tokens. */
  readonly length: number;
  /** Tokens over all branches of one draft call. */
  readonly budget: number;
  /** `auto` for what measures fastest. */
  readonly mode: Mode | 'auto';
  /** Whether what repeats the text so far is proposed where nothing better is at hand; true unless given. */
  readonly lookup?: boolean;
  /** Most steps that may be sent before the outcome of the step before them is known; 0 unless given. */
  readonly ahead?: number;
}

/** The mode of a step, and why. */
export interface StepDecision {
  readonly mode: Mode;
  /** `setting`: it is fixed; `own`: the drafts of this sequence fail, or come true, more often than others'; the others as in pace.ts. */
  readonly reason: 'setting' | 'no drafter' | 'warm-up' | 'trial' | 'fastest' | 'own';
}

/** What became of a step. */
export interface Outcome {
  readonly mode: Mode;
  readonly block: Block;
  readonly accepted: number;
  /** The whole step, its verify call, and the draft calls beside and before that (0 where there was none). */
  readonly stepMicros: number;
  readonly verify: VerifyTime;
  readonly draftMicros: number;
  readonly redraftMicros: number;
  /** Tokens that the call beside was allowed, and the one before. */
  readonly budget: number;
  readonly redraftLength: number;
}

/** Each sequence's first blocks are verified in full and by half in turn; later one of so many in full, or drafted anew, whatever it is worth. */
const LEARNING = 16;
const TRIED_IN_FULL = 16;

/** Share by which older outcomes count less with each new one. */
const EXPECTED_FORGET = 0.05;

/** What all sequences of a gateway have measured. */
export class Measurements {
  readonly pace = new ModeSelector();
  /** Verify calls by tokens drafted: alone, and beside a draft call. */
  readonly verify: VerifyCost;
  readonly verifyOverlapped: VerifyCost;
  /** Draft calls by tokens asked for: before, and beside a verify call. */
  readonly draft = new LinearCost();
  readonly draftOverlapped = new LinearCost();
  readonly calibrations: Readonly<Record<ProposalSource, Calibration>> = {
    drafter: new Calibration(),
    'prompt lookup': new Calibration(),
    prediction: new Calibration(),
    grammar: new Calibration(),
    none: new Calibration(),
  };
  /** Share of steps with the outcome that the next one had been sent for, older ones fading; and times that it was too small. */
  expectedRight = 1;
  unexpected = 0;
  /** Blocks that there were to verify, and times that there was none from the drafter. */
  blocks = 0;
  misses = 0;
  readonly reach: AcceptanceCurve;

  constructor(longest: number) {
    this.verify = new VerifyCost(longest);
    this.verifyOverlapped = new VerifyCost(longest);
    this.reach = new AcceptanceCurve(longest);
  }
}

/** Share by which a sequence's older steps count less with each new one, and by which what it knows of another mode becomes the usual. */
const OWN_FORGET = 0.05;
const OWN_FADE = 0.01;
/** A mode must be so many times as fast for this sequence as the common one: its few steps swing. */
const OWN_BETTER = 1.25;
/** Steps for which a sequence then stays with its own choice: a change costs a step or two. */
const OWN_STAY = 16;

/** First steps after a change of mode that tell nothing of it: they have the other mode's block, and none is in flight. */
const SETTLING = 2;

/** One sequence's view. */
export class Controller {
  readonly #limits: DraftLimits;
  readonly #measured: Measurements;
  readonly #reach: AcceptanceCurve;
  /** Tokens that this sequence's own steps commit, by mode; what is usual stands for those that it has not made yet. */
  readonly #own: Partial<Record<Mode, number>> = {};
  /** The sequence's own choice, and the steps for which it holds. */
  #chosen: Mode = 'overlap';
  #stay = 0;
  /** Mode of the last step, and steps before it that had the same. */
  #last: Mode | undefined;
  #same = 0;

  constructor(limits: DraftLimits, measured: Measurements) {
    this.#limits = limits;
    this.#measured = measured;
    this.#reach = new AcceptanceCurve(limits.length, OWN_FORGET, measured.reach);
    measured.pace.enter();
  }

  /** The sequence has ended. */
  close(): void {
    this.#measured.pace.leave();
  }

  /** @param drafter whether there is one */
  choose(drafter: boolean): StepDecision {
    const { mode: fixed } = this.#limits;
    if (fixed === 'plain') return { mode: fixed, reason: 'setting' };
    if (!drafter) return { mode: 'plain', reason: 'no drafter' };
    if (fixed !== 'auto') return { mode: fixed, reason: 'setting' };
    const common = this.#measured.pace.next();
    if (common.reason !== 'fastest') return common;
    if (this.#stay-- > 0) return { mode: this.#chosen, reason: 'own' };
    const best = MODES.reduce((a, b) => (this.#rate(b) > this.#rate(a) ? b : a));
    if (this.#rate(best) <= OWN_BETTER * this.#rate(common.mode)) return common;
    [this.#chosen, this.#stay] = [best, OWN_STAY - 1];
    return { mode: best, reason: 'own' };
  }

  /** Longest block that fits what is still wanted: a step commits one token more than it accepts. */
  room(wanted: number): number {
    return Math.max(0, Math.min(this.#limits.length, wanted - 1));
  }

  /**
   * The tokens of a block that are worth verifying beside a draft call or alone: as many as make the most of chances and time. A
   * verify that ends before the draft beside it would be waited for anyway.
   */
  worthVerifying(block: Block, mode: Mode): Block {
    if (block.tokens.length === 0) return block;
    const beside = mode === 'overlap';
    const verify = this.#verify(mode);
    const least = beside ? this.#measured.draftOverlapped.at(this.budget(block.tokens.length)) : 0;
    const worth = this.#worth(mode);
    const time = (n: number) => Math.max(least, verify.at(n));
    let [length, best] = [0, -worth * time(0)];
    for (const [k, expected] of this.#expected(block).entries()) {
      const value = expected - worth * time(k + 1);
      if (value >= best) [length, best] = [k + 1, value];
    }
    // what a token costs is known from runs of several lengths only, so that all sequences take turns together
    const turn = Math.floor(this.#measured.blocks++ / this.#measured.pace.open);
    if (turn < LEARNING) length = turn % 2 === 0 ? block.tokens.length : Math.ceil(block.tokens.length / 2);
    else if (turn % TRIED_IN_FULL === 0) length = block.tokens.length;
    return length === block.tokens.length ? block : cut(block, 0, length);
  }

  /** The block of which more tokens are expected to be right. */
  better(one: Block, other: Block): Block {
    return this.#expect(other) > this.#expect(one) ? other : one;
  }

  /**
   * How many tokens to draft anew, before they are verified; 0 where that is not worth its time, and the step goes on with what is at
   * hand.
   */
  worthDrafting(mode: Mode, room: number, atHand: Block): number {
    if (mode === 'plain' || room === 0) return 0;
    const { draft } = this.#measured;
    const turn = this.#measured.misses++;
    // what it takes is known from drafts of several lengths only, and may change
    if (turn < LEARNING || turn % TRIED_IN_FULL === 0) return turn % 2 === 0 ? room : Math.ceil(room / 2);
    const worth = this.#worth(mode);
    const perToken = this.#verify(mode).slope ?? 0;
    let [length, best] = [0, this.#expect(atHand)];
    for (let n = 1; n <= room; n++) {
      const value = this.#reach.expected(n) - worth * (draft.at(n) + perToken * n);
      if (value > best) [length, best] = [n, value];
    }
    return length;
  }

  /** Whether to send the next step for the outcome that the drafter expects: where that fails, its draft is in the way of another one. */
  worthSendingAhead(): boolean {
    return this.#measured.expectedRight > 0.5 || this.#measured.unexpected++ % TRIED_IN_FULL === 0;
  }

  /** @param right whether a step ended as the next one had been sent for */
  sentAhead(right: boolean): void {
    this.#measured.expectedRight += EXPECTED_FORGET * (Number(right) - this.#measured.expectedRight);
  }

  /** Chances of a block's tokens, which the drafter shares its budget out by. */
  chances({ source, confidences }: Block): number[] {
    const calibration = this.#measured.calibrations[source];
    return confidences.map((confidence) => calibration.chance(confidence));
  }

  /** Tokens that a draft call beside the verify of so many may take to end no later. */
  budget(drafted: number): number {
    const { draftOverlapped, verifyOverlapped } = this.#measured;
    const { budget } = this.#limits;
    const time = verifyOverlapped.at(drafted);
    if (!draftOverlapped.known || draftOverlapped.at(budget) <= time) return budget;
    const { slope } = draftOverlapped;
    // as long as all calls were alike, a smaller one tells what a token costs
    const fitting =
      slope === undefined ? budget * 0.75 : slope > 0 ? budget - (draftOverlapped.at(budget) - time) / slope : budget;
    return Math.round(Math.max(Math.min(budget, 2 * (this.#limits.length + 1)), fitting));
  }

  observe(outcome: Outcome): void {
    const { mode, block, accepted } = outcome;
    const measured = this.#measured;
    const drafted = block.tokens.length;
    const expected = this.#expect(block);
    this.#verify(mode).observe(outcome.verify);
    if (outcome.draftMicros > 0) measured.draftOverlapped.observe(outcome.budget, outcome.draftMicros);
    if (outcome.redraftMicros > 0) measured.draft.observe(outcome.redraftLength, outcome.redraftMicros);
    if (drafted > 0) {
      if (block.source === 'drafter')
        for (const reach of [measured.reach, this.#reach]) reach.observe(drafted, accepted);
      for (const [k, confidence] of block.confidences.slice(0, accepted + 1).entries()) {
        measured.calibrations[block.source].observe(confidence, k < accepted);
      }
    }
    this.#same = mode === this.#last ? this.#same + 1 : 0;
    this.#last = mode;
    if (this.#same < SETTLING) return;
    measured.pace.observe(mode, 1 + expected, outcome.stepMicros);
    this.#learn(mode, 1 + expected);
  }

  /** What verify calls take in steps of a mode. */
  #verify(mode: Mode): VerifyCost {
    return mode === 'overlap' ? this.#measured.verifyOverlapped : this.#measured.verify;
  }

  #learn(mode: Mode, tokens: number): void {
    for (const each of MODES) {
      const usual = this.#measured.pace.typical(each)?.tokens;
      if (usual === undefined) continue;
      const own = this.#own[each] ?? usual;
      this.#own[each] = own + (each === mode ? OWN_FORGET * (tokens - own) : OWN_FADE * (usual - own));
    }
  }

  /** Expected number of right tokens of a block. */
  #expect(block: Block): number {
    return this.#expected(block).at(-1) ?? 0;
  }

  /** Expected number of right tokens among the first 1, 2 .. of a block. */
  #expected(block: Block): number[] {
    let [reached, expected] = [1, 0];
    return this.chances(block).map((chance) => {
      reached *= chance;
      expected += reached;
      return expected;
    });
  }

  /**
   * What a step's time is worth, tokens per microsecond: what the sequence makes in this mode, and at least what it would make without
   * drafts, so that a bad choice is not measured by itself.
   */
  #worth(mode: Mode): number {
    const bare = this.#verify(mode).at(0);
    return Math.max(this.#rate(mode), this.#measured.pace.rate('plain'), bare > 0 ? 1 / bare : 0);
  }

  /** Tokens per microsecond that this sequence makes in a mode, whose steps take what they take for all. */
  #rate(mode: Mode): number {
    const usual = this.#measured.pace.typical(mode);
    return usual ? (this.#own[mode] ?? usual.tokens) / usual.micros : 0;
  }
}

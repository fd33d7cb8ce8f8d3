import { cut } from './block.ts';
import { AcceptanceCurve, type VerifyCost, type VerifyTime } from './cost-model.ts';
import type { Measurements } from './measurements.ts';
import { type Block, type DraftLimits, MODES, type Mode, type StepDecision, type StepStats } from './types.ts';

/**
 * Chooses how each step drafts, to maximize tokens per time. One rule governs all choices: the value of a period of
 * time is the number of tokens that the sequence would otherwise generate in it. Work expected to yield fewer tokens is
 * skipped. Times and probabilities are measured, never assumed (cost-model.ts). All sequences share one mode
 * (mode-selector.ts), except sequences whose drafts are rejected or accepted so much more often that another mode is
 * faster for them.
 */

/** Default `budget` of the draft limits. */
export const DRAFT_BUDGET = 16;
/** Maximum number of steps that the gateway sends ahead. */
export const STEPS_AHEAD = 4;

/** Figures of a finished step, from which the controller learns. */
export interface StepFigures
  extends Pick<StepStats, 'mode' | 'accepted' | 'budget' | 'stepMicros' | 'draftMicros' | 'redraftMicros'> {
  readonly block: Block;
  readonly verify: VerifyTime;
  /** Number of tokens requested from the redraft. */
  readonly redraftLength: number;
}

/** Number of blocks at the start that are alternately verified in full and cut to half, to learn costs. */
const LEARNING = 16;
/** Interval, in blocks, at which a block is later verified in full or redrafted whatever its expected value. */
const TRIED_IN_FULL = 16;

/** Share by which each new guess of a step's outcome reduces the weight of older guesses. */
const EXPECTED_FORGET = 0.05;

/** Share by which each new step reduces the weight of a sequence's older steps. */
const OWN_FORGET = 0.05;
/** Share by which a sequence's estimate for an unused mode returns to the common estimate, per step. */
const OWN_FADE = 0.01;
/**
 * Factor by which a sequence must be faster in another mode to leave the common mode. It is large because a sequence
 * has few steps, which vary widely.
 */
const OWN_BETTER = 1.25;
/** Number of steps for which a sequence keeps its own mode, because a change costs a step or two. */
const OWN_STAY = 16;

/**
 * Number of steps after a change of mode that are not counted: they verify a block drafted in the previous mode, and
 * no step is in flight.
 */
const SETTLING = 2;

/** Decides for one sequence how each step drafts. */
export class Controller {
  readonly #limits: DraftLimits;
  readonly #measured: Measurements;
  readonly #acceptance: AcceptanceCurve;
  /** Expected tokens per step of this sequence, by mode. Starts at the average of all sequences. */
  readonly #tokensPerStep: Partial<Record<Mode, number>> = {};
  /** The sequence's own mode, and the number of steps for which it still applies. */
  #chosen: Mode = 'overlap';
  #stay = 0;
  /** Mode of the last step, and the number of consecutive steps before it in that mode. */
  #last: Mode | undefined;
  #same = 0;

  constructor(limits: DraftLimits, measured: Measurements) {
    this.#limits = limits;
    this.#measured = measured;
    this.#acceptance = new AcceptanceCurve(limits.length, OWN_FORGET, measured.acceptance);
    measured.modes.enter();
  }

  /** Must be called when the sequence has ended. */
  close(): void {
    this.#measured.modes.leave();
  }

  /** Chooses the mode of the next step. */
  choose(drafterAvailable: boolean): StepDecision {
    const { mode: fixed } = this.#limits;
    if (fixed === 'plain') return { mode: fixed, reason: 'setting' };
    if (!drafterAvailable) return { mode: 'plain', reason: 'no drafter' };
    if (fixed !== 'auto') return { mode: fixed, reason: 'setting' };
    const common = this.#measured.modes.next();
    if (common.reason !== 'fastest') return common;
    if (this.#stay-- > 0) return { mode: this.#chosen, reason: 'own' };
    const best = MODES.reduce((a, b) => (this.#rate(b) > this.#rate(a) ? b : a));
    if (this.#rate(best) <= OWN_BETTER * this.#rate(common.mode)) return common;
    [this.#chosen, this.#stay] = [best, OWN_STAY - 1];
    return { mode: best, reason: 'own' };
  }

  /** Returns the maximum block length if `wanted` tokens are left: a step commits one token more than it accepts. */
  room(wanted: number): number {
    return Math.max(0, Math.min(this.#limits.length, wanted - 1));
  }

  /**
   * Returns the tokens of a block that are worth verifying, judged by their probability of acceptance and the time they
   * take. In `overlap` mode, time until the end of the concurrent draft call is free.
   */
  worthVerifying(block: Block, mode: Mode): Block {
    if (block.tokens.length === 0) return block;
    const overlapped = mode === 'overlap';
    const verify = this.#verify(mode);
    const least = overlapped ? this.#measured.draftOverlapped.at(this.budget(block.tokens.length)) : 0;
    const worth = this.#worth(mode);
    const time = (n: number) => Math.max(least, verify.at(n));
    let [length, best] = [0, -worth * time(0)];
    for (const [k, expected] of this.#expected(block).entries()) {
      const value = expected - worth * time(k + 1);
      if (value >= best) [length, best] = [k + 1, value];
    }
    // The cost of a token can only be measured with runs of different lengths, so all sequences vary their lengths at
    // the same time.
    const turn = Math.floor(this.#measured.blocks++ / this.#measured.modes.open);
    if (turn < LEARNING) length = turn % 2 === 0 ? block.tokens.length : Math.ceil(block.tokens.length / 2);
    else if (turn % TRIED_IN_FULL === 0) length = block.tokens.length;
    return length === block.tokens.length ? block : cut(block, 0, length);
  }

  /** Returns the block with the larger expected number of accepted tokens. */
  better(one: Block, other: Block): Block {
    return this.#expect(other) > this.#expect(one) ? other : one;
  }

  /**
   * Returns the number of tokens to redraft before the verify call, or 0 if a redraft is not worth its time.
   *
   * @param candidate block available without a redraft
   */
  worthDrafting(mode: Mode, room: number, candidate: Block): number {
    if (mode === 'plain' || room === 0) return 0;
    const { draft } = this.#measured;
    const turn = this.#measured.misses++;
    // The cost can only be measured with drafts of different lengths, and it may change.
    if (turn < LEARNING || turn % TRIED_IN_FULL === 0) return turn % 2 === 0 ? room : Math.ceil(room / 2);
    const worth = this.#worth(mode);
    const perToken = this.#verify(mode).slope ?? 0;
    let [length, best] = [0, this.#expect(candidate)];
    for (let n = 1; n <= room; n++) {
      const value = this.#acceptance.expected(n) - worth * (draft.at(n) + perToken * n);
      if (value > best) [length, best] = [n, value];
    }
    return length;
  }

  /**
   * Returns true if the next step should be sent ahead, assuming the outcome that the drafter expects. After a wrong
   * guess, the useless draft of that step delays the next draft.
   */
  worthSendingAhead(): boolean {
    return this.#measured.expectedRight > 0.5 || this.#measured.unexpected++ % TRIED_IN_FULL === 0;
  }

  /** Records whether the outcome for which a step was sent ahead occurred. */
  sentAhead(right: boolean): void {
    this.#measured.expectedRight += EXPECTED_FORGET * (Number(right) - this.#measured.expectedRight);
  }

  /**
   * Returns, for each token, the probability that it is accepted if all tokens before it are. The drafter divides its
   * budget accordingly.
   */
  chances({ source, confidences }: Block): number[] {
    const acceptance = this.#measured.acceptanceBySource[source];
    return confidences.map((confidence) => acceptance.chance(confidence));
  }

  /** Returns the largest draft budget whose draft call ends no later than the verify call of `drafted` tokens. */
  budget(drafted: number): number {
    const { draftOverlapped, verifyOverlapped } = this.#measured;
    const { budget } = this.#limits;
    const time = verifyOverlapped.at(drafted);
    if (!draftOverlapped.known || draftOverlapped.at(budget) <= time) return budget;
    const { slope } = draftOverlapped;
    // If all calls so far had the same size, a smaller one reveals the cost of a token.
    const fitting =
      slope === undefined ? budget * 0.75 : slope > 0 ? budget - (draftOverlapped.at(budget) - time) / slope : budget;
    return Math.round(Math.max(Math.min(budget, 2 * (this.#limits.length + 1)), fitting));
  }

  /** Learns from a finished step. */
  observe(figures: StepFigures): void {
    const { mode, block, accepted } = figures;
    const measured = this.#measured;
    const drafted = block.tokens.length;
    const expected = this.#expect(block);
    this.#verify(mode).observe(figures.verify);
    if (figures.draftMicros > 0) measured.draftOverlapped.observe(figures.budget, figures.draftMicros);
    if (figures.redraftMicros > 0) measured.draft.observe(figures.redraftLength, figures.redraftMicros);
    if (drafted > 0) {
      if (block.source === 'drafter')
        for (const curve of [measured.acceptance, this.#acceptance]) curve.observe(drafted, accepted);
      for (const [k, confidence] of block.confidences.slice(0, accepted + 1).entries()) {
        measured.acceptanceBySource[block.source].observe(confidence, k < accepted);
      }
    }
    this.#same = mode === this.#last ? this.#same + 1 : 0;
    this.#last = mode;
    if (this.#same < SETTLING) return;
    measured.modes.observe(mode, 1 + expected, figures.stepMicros);
    this.#learn(mode, 1 + expected);
  }

  /** Returns the cost of verify calls in a mode. */
  #verify(mode: Mode): VerifyCost {
    return mode === 'overlap' ? this.#measured.verifyOverlapped : this.#measured.verify;
  }

  /** Updates the estimates of this sequence's tokens per step. */
  #learn(mode: Mode, tokens: number): void {
    for (const each of MODES) {
      const usual = this.#measured.modes.stats[each].typical?.tokens;
      if (usual === undefined) continue;
      const estimate = this.#tokensPerStep[each] ?? usual;
      this.#tokensPerStep[each] =
        estimate + (each === mode ? OWN_FORGET * (tokens - estimate) : OWN_FADE * (usual - estimate));
    }
  }

  /** Returns the expected number of accepted tokens of a block. */
  #expect(block: Block): number {
    return this.#expected(block).at(-1) ?? 0;
  }

  /** Returns the expected number of accepted tokens among the first 1, 2, ... tokens of a block. */
  #expected(block: Block): number[] {
    let [reached, expected] = [1, 0];
    return this.chances(block).map((chance) => {
      reached *= chance;
      expected += reached;
      return expected;
    });
  }

  /**
   * Returns the value of time in tokens per microsecond: the sequence's rate in this mode, but at least the rate
   * without drafts, so that a bad choice does not lower the bar for the next choice.
   */
  #worth(mode: Mode): number {
    const bare = this.#verify(mode).at(0);
    return Math.max(this.#rate(mode), this.#measured.modes.stats.plain.rate, bare > 0 ? 1 / bare : 0);
  }

  /** Returns the tokens per microsecond of this sequence in a mode, assuming the average step time of all sequences. */
  #rate(mode: Mode): number {
    const usual = this.#measured.modes.stats[mode].typical;
    return usual ? (this.#tokensPerStep[mode] ?? usual.tokens) / usual.micros : 0;
  }
}

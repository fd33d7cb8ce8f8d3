import { cut } from './block.ts';
import { AcceptanceCurve, type VerifyCost, type VerifyTime } from './cost-model.ts';
import type { Measurements } from './measurements.ts';
import { type Block, type DraftLimits, MODES, type Mode, type StepDecision, type StepStats } from './types.ts';

/**
 * Chooses how each step drafts, to maximize tokens per time. One rule governs all choices: time is worth the tokens
 * that the sequence would otherwise generate in it. Work expected to yield fewer tokens than that is skipped. Times and
 * chances are measured, never assumed (cost-model.ts). All sequences share one mode (mode-selector.ts), except those
 * whose drafts fail or succeed so much more often that another mode suits them better.
 */

/** Default `budget` of the limits. */
export const DRAFT_BUDGET = 16;
/** Default `ahead` of the gateway. */
export const STEPS_AHEAD = 4;

/** Figures of a finished step, from which the controller learns. */
export interface Outcome
  extends Pick<StepStats, 'mode' | 'accepted' | 'budget' | 'stepMicros' | 'draftMicros' | 'redraftMicros'> {
  readonly block: Block;
  readonly verify: VerifyTime;
  /** Number of tokens requested from the redraft. */
  readonly redraftLength: number;
}

/** The first blocks are alternately verified in full and cut to half, to learn costs. */
const LEARNING = 16;
/** After that, one block in 16 is verified in full or redrafted regardless of its expected value. */
const TRIED_IN_FULL = 16;

/** Decay of older outcomes per new one. */
const EXPECTED_FORGET = 0.05;

/** Decay of a sequence's older steps per new one. */
const OWN_FORGET = 0.05;
/** Share by which a sequence's estimate of an unused mode returns to the common one, per step. */
const OWN_FADE = 0.01;
/** Speed advantage that a mode needs to replace the common one for a sequence, whose few steps vary widely. */
const OWN_BETTER = 1.25;
/** Steps for which a sequence keeps its own mode: a change costs a step or two. */
const OWN_STAY = 16;

/**
 * Steps after a change of mode that are not counted: they verify a block drafted in the previous mode, with no step in
 * flight.
 */
const SETTLING = 2;

/** Decides for one sequence. */
export class Controller {
  readonly #limits: DraftLimits;
  readonly #measured: Measurements;
  readonly #acceptance: AcceptanceCurve;
  /** Expected tokens per step of this sequence, by mode; starts at the average of all sequences. */
  readonly #tokensPerStep: Partial<Record<Mode, number>> = {};
  /** The sequence's own mode, and the steps for which it still holds. */
  #chosen: Mode = 'overlap';
  #stay = 0;
  /** Mode of the last step, and the number of steps before it in the same mode. */
  #last: Mode | undefined;
  #same = 0;

  constructor(limits: DraftLimits, measured: Measurements) {
    this.#limits = limits;
    this.#measured = measured;
    this.#acceptance = new AcceptanceCurve(limits.length, OWN_FORGET, measured.acceptance);
    measured.modes.enter();
  }

  /** Call it when the sequence has ended. */
  close(): void {
    this.#measured.modes.leave();
  }

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

  /** Longest block for a step with `wanted` tokens to go: a step commits one token more than it accepts. */
  room(wanted: number): number {
    return Math.max(0, Math.min(this.#limits.length, wanted - 1));
  }

  /**
   * The tokens of a block that are worth verifying, by their chances and the time they take. In `overlap`, time up to the end of the
   * concurrent draft call is free.
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
    // the cost of a token can be measured only from runs of different lengths, so all sequences vary their lengths
    // together
    const turn = Math.floor(this.#measured.blocks++ / this.#measured.modes.open);
    if (turn < LEARNING) length = turn % 2 === 0 ? block.tokens.length : Math.ceil(block.tokens.length / 2);
    else if (turn % TRIED_IN_FULL === 0) length = block.tokens.length;
    return length === block.tokens.length ? block : cut(block, 0, length);
  }

  /** The block with more expected accepted tokens. */
  better(one: Block, other: Block): Block {
    return this.#expect(other) > this.#expect(one) ? other : one;
  }

  /**
   * Number of tokens to redraft before the verify call; 0 if a redraft is not worth its time.
   *
   * @param candidate block available without a redraft
   */
  worthDrafting(mode: Mode, room: number, candidate: Block): number {
    if (mode === 'plain' || room === 0) return 0;
    const { draft } = this.#measured;
    const turn = this.#measured.misses++;
    // the cost can be measured only from drafts of different lengths, and may change
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
   * True if the next step should be sent ahead for the outcome that the drafter expects. After a wrong guess, its
   * useless draft delays the next one.
   */
  worthSendingAhead(): boolean {
    return this.#measured.expectedRight > 0.5 || this.#measured.unexpected++ % TRIED_IN_FULL === 0;
  }

  /** Records whether a step had the outcome for which the next one was sent ahead. */
  sentAhead(right: boolean): void {
    this.#measured.expectedRight += EXPECTED_FORGET * (Number(right) - this.#measured.expectedRight);
  }

  /** Probability that each token is accepted if all before it are; the drafter divides its budget accordingly. */
  chances({ source, confidences }: Block): number[] {
    const acceptance = this.#measured.acceptanceBySource[source];
    return confidences.map((confidence) => acceptance.chance(confidence));
  }

  /** Largest draft budget that ends no later than the concurrent verify call of a block with `drafted` tokens. */
  budget(drafted: number): number {
    const { draftOverlapped, verifyOverlapped } = this.#measured;
    const { budget } = this.#limits;
    const time = verifyOverlapped.at(drafted);
    if (!draftOverlapped.known || draftOverlapped.at(budget) <= time) return budget;
    const { slope } = draftOverlapped;
    // if all calls so far had the same size, a smaller one reveals the cost of a token
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
        for (const curve of [measured.acceptance, this.#acceptance]) curve.observe(drafted, accepted);
      for (const [k, confidence] of block.confidences.slice(0, accepted + 1).entries()) {
        measured.acceptanceBySource[block.source].observe(confidence, k < accepted);
      }
    }
    this.#same = mode === this.#last ? this.#same + 1 : 0;
    this.#last = mode;
    if (this.#same < SETTLING) return;
    measured.modes.observe(mode, 1 + expected, outcome.stepMicros);
    this.#learn(mode, 1 + expected);
  }

  /** Cost of verify calls in a mode. */
  #verify(mode: Mode): VerifyCost {
    return mode === 'overlap' ? this.#measured.verifyOverlapped : this.#measured.verify;
  }

  #learn(mode: Mode, tokens: number): void {
    for (const each of MODES) {
      const usual = this.#measured.modes.typical(each)?.tokens;
      if (usual === undefined) continue;
      const estimate = this.#tokensPerStep[each] ?? usual;
      this.#tokensPerStep[each] =
        estimate + (each === mode ? OWN_FORGET * (tokens - estimate) : OWN_FADE * (usual - estimate));
    }
  }

  /** Expected number of accepted tokens of a block. */
  #expect(block: Block): number {
    return this.#expected(block).at(-1) ?? 0;
  }

  /** Expected number of accepted tokens among the first 1, 2, ... of a block. */
  #expected(block: Block): number[] {
    let [reached, expected] = [1, 0];
    return this.chances(block).map((chance) => {
      reached *= chance;
      expected += reached;
      return expected;
    });
  }

  /**
   * Value of time, tokens per microsecond: the sequence's rate in this mode, and at least its rate without drafts, so that a bad choice
   * does not lower its own bar.
   */
  #worth(mode: Mode): number {
    const bare = this.#verify(mode).at(0);
    return Math.max(this.#rate(mode), this.#measured.modes.rate('plain'), bare > 0 ? 1 / bare : 0);
  }

  /** Tokens per microsecond of this sequence in a mode; step times are those of all sequences. */
  #rate(mode: Mode): number {
    const usual = this.#measured.modes.typical(mode);
    return usual ? (this.#tokensPerStep[mode] ?? usual.tokens) / usual.micros : 0;
  }
}

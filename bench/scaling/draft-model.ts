import type { Branch } from '@ptp/protocol/gen/ptp/v1/drafter_pb';
import { planBranches, type YieldCurves } from '../../drafter/src/branch-plan.ts';
import type { DraftCall, StepOutcome } from '../../gateway/src/decode/ports.ts';
import type { Random } from '../random.ts';
import { sum } from '../statistics.ts';

/** Probabilities that drafted tokens are correct. */
export interface DraftQuality {
  /**
   * Probability that a drafted token is correct if all earlier tokens of its block are. The drafter's confidence has
   * the same value.
   */
  readonly chance: number;
  /**
   * Probabilities that a branch begins with the target's own token, after a rejected token and after a fully accepted
   * block.
   */
  readonly hits: readonly [afterMiss: number, whole: number];
  /**
   * Probability that the target and the copy of it in the drafter agree on one token. Present for a drafter that checks
   * blocks with the copy and makes a single branch. The target and the copy have to agree on every token up to the
   * branch, so `hits` is not used.
   */
  readonly checks?: number;
}

/** The outcome of a step. It is drawn at random when the step is sent. */
export interface SimulatedOutcome extends StepOutcome {
  /** True if the drafter predicts `nextToken`. */
  readonly predicted: boolean;
}

/**
 * Simulates target and drafter for one sequence. Only equality of tokens matters, so every new token gets the next
 * number.
 */
export class DraftModel {
  readonly #quality: DraftQuality;
  readonly #random: Random;
  readonly #curves: YieldCurves;
  #token = 0;

  constructor(quality: DraftQuality, random: Random, curves: YieldCurves) {
    this.#quality = quality;
    this.#random = random;
    this.#curves = curves;
  }

  outcome(block: readonly number[]): SimulatedOutcome {
    const { chance, hits, checks } = this.#quality;
    let accepted = 0;
    while (accepted < block.length && this.#random.next() < chance) accepted++;
    const hit = checks === undefined ? hits[accepted < block.length ? 0 : 1] : checks ** (accepted + 1);
    return { accepted, nextToken: this.#token++, predicted: this.#random.next() < hit };
  }

  /** @param outcome outcome of the step under verification. Undefined for a redraft */
  branches({ budget, confidences, maxBranchLength }: DraftCall, outcome: SimulatedOutcome | undefined): Branch[] {
    if (!outcome) return [this.#branch(0, budget)];
    const { checks } = this.#quality;
    const first = outcome.predicted ? outcome.nextToken : undefined;
    if (checks !== undefined) return [this.#branch(outcome.accepted, Math.min(budget, maxBranchLength), first)];
    // The plan covers only the block. The assumed tokens before the block count as certain.
    return planBranches(confidences, this.#curves, budget, maxBranchLength).flatMap((length, accepted) =>
      length > 0 ? [this.#branch(accepted, length, accepted === outcome.accepted ? first : undefined)] : [],
    );
  }

  #branch(accepted: number, length: number, first?: number): Branch {
    const tokens = Array.from({ length }, (_, i) => (i === 0 && first !== undefined ? first : this.#token++));
    const confidences = tokens.map(() => this.#quality.chance);
    return { $typeName: 'ptp.v1.Branch', accepted, tokens, confidences };
  }
}

/**
 * Returns the expected number of correct tokens in a branch by its length (`engine.yieldCurve`). The first token is
 * correct with probability `hits`, and each later token with probability `chance`.
 */
export function yieldCurves({ chance, hits }: DraftQuality, longest: number): YieldCurves {
  const lengths = Array.from({ length: longest + 2 }, (_, n) => n);
  const curve = (hit: number) => lengths.map((n) => hit * sum(lengths.slice(0, n).map((k) => chance ** k)));
  return { afterMiss: curve(hits[0]), whole: curve(hits[1]) };
}

/** Counts the tokens that the drafter has to run for a call. */
export class DrafterContext {
  /**
   * Number of committed tokens that the drafter has not run yet. The prompt's last token is left for the first call
   * (drafter/src/drafter.ts).
   */
  #unread = 1;
  /** Tokens after the committed tokens that the drafter has already run. */
  #assumed: number[] = [];

  commit(tokens: readonly number[]): void {
    for (const token of tokens) {
      if (this.#assumed[0] === token) this.#assumed.shift();
      else {
        this.#assumed = [];
        this.#unread++;
      }
    }
  }

  /** @param tokens tokens that follow the committed tokens @returns number of tokens that the drafter has to run */
  read(tokens: readonly number[]): number {
    const differs = tokens.findIndex((token, i) => token !== this.#assumed[i]);
    const unread = this.#unread + (differs < 0 ? 0 : tokens.length - differs);
    [this.#unread, this.#assumed] = [0, [...tokens]];
    return Math.max(1, unread);
  }
}

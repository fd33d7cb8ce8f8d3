import type { Branch } from '@ptp/protocol/gen/ptp/v1/drafter_pb';
import { planBranches, type YieldCurves } from '../../drafter/src/branch-plan.ts';
import type { DraftCall, StepOutcome } from '../../gateway/src/decode/ports.ts';
import { sum } from '../statistics.ts';

/** Probabilities that drafts turn out right. */
export interface DraftQuality {
  /** Chance of a drafted token, if all before it in its block are right; the drafter's confidence is the same. */
  readonly chance: number;
  /** Chance that the first token of a branch is the target's own: after a rejected token, and after a whole block. */
  readonly hits: readonly [afterMiss: number, whole: number];
  /**
   * Set for a drafter that checks blocks with its copy of the target and makes a single branch: chance that the copy agrees with the target
   * on one token. It has to agree along the whole block, so `hits` does not apply.
   */
  readonly checks?: number;
}

/** A step's outcome, drawn when it is sent. */
export interface SimulatedOutcome extends StepOutcome {
  /** The drafter predicts `nextToken`. */
  readonly predicted: boolean;
}

/** Target and drafter of one sequence. Only the equality of tokens matters, so each new one gets the next number. */
export class DraftModel {
  readonly #quality: DraftQuality;
  readonly #random: () => number;
  readonly #curves: YieldCurves;
  #token = 0;

  constructor(quality: DraftQuality, random: () => number, curves: YieldCurves) {
    this.#quality = quality;
    this.#random = random;
    this.#curves = curves;
  }

  outcome(block: readonly number[]): SimulatedOutcome {
    const { chance, hits, checks } = this.#quality;
    let accepted = 0;
    while (accepted < block.length && this.#random() < chance) accepted++;
    const hit = checks === undefined ? hits[accepted < block.length ? 0 : 1] : checks ** (accepted + 1);
    return { accepted, nextToken: this.#token++, predicted: this.#random() < hit };
  }

  /** @param outcome of the step that is under verification; none for a redraft */
  branches({ budget, confidences, maxBranchLength }: DraftCall, outcome: SimulatedOutcome | undefined): Branch[] {
    if (!outcome) return [this.#branch(0, budget)];
    const { checks } = this.#quality;
    const first = outcome.predicted ? outcome.nextToken : undefined;
    if (checks !== undefined) return [this.#branch(outcome.accepted, Math.min(budget, maxBranchLength), first)];
    // the plan covers the block; assumed tokens before it are certain
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

/** Expected right tokens of branches (`engine.yieldCurve`): the first one hits, the others are right like any token. */
export function yieldCurves({ chance, hits }: DraftQuality, longest: number): YieldCurves {
  const lengths = Array.from({ length: longest + 2 }, (_, n) => n);
  const curve = (hit: number) => lengths.map((n) => hit * sum(lengths.slice(0, n).map((k) => chance ** k)));
  return { afterMiss: curve(hits[0]), whole: curve(hits[1]) };
}

/** Counts the tokens that the drafter has to read for a call. */
export class DrafterContext {
  /** Committed tokens not read yet. The prompt's last one is left for the first call (drafter/src/drafter.ts). */
  #unread = 1;
  /** Tokens read after the committed ones. */
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

  /** @param tokens after the committed ones */
  read(tokens: readonly number[]): number {
    const differs = tokens.findIndex((token, i) => token !== this.#assumed[i]);
    const unread = this.#unread + (differs < 0 ? 0 : tokens.length - differs);
    [this.#unread, this.#assumed] = [0, [...tokens]];
    return Math.max(1, unread);
  }
}

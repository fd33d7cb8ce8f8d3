import { AcceptanceByConfidence, AcceptanceCurve, LinearCost, VerifyCost } from './cost-model.ts';
import { ModeSelector } from './mode-selector.ts';
import type { ProposalSource } from './types.ts';

/** Measurements that all sequences of the gateway share. */
export class Measurements {
  readonly modes = new ModeSelector();
  /**
   * Costs of verify calls by number of drafted tokens: for verify calls alone, and for those that overlap a draft call.
   */
  readonly verify: VerifyCost;
  readonly verifyOverlapped: VerifyCost;
  /**
   * Costs of draft calls by number of requested tokens: for calls before a verify call, and for calls concurrent with
   * one.
   */
  readonly draft = new LinearCost();
  readonly draftOverlapped = new LinearCost();
  readonly acceptanceBySource: Readonly<Record<ProposalSource, AcceptanceByConfidence>> = {
    drafter: new AcceptanceByConfidence(),
    'prompt lookup': new AcceptanceByConfidence(),
    prediction: new AcceptanceByConfidence(),
    grammar: new AcceptanceByConfidence(),
    none: new AcceptanceByConfidence(),
  };
  /**
   * Decayed share of guessed outcomes that occurred, and number of steps that were not sent ahead because this share
   * was too low.
   */
  expectedRight = 1;
  unexpected = 0;
  /** Number of blocks considered for verification, and number of drafts in which no branch matched the outcome. */
  blocks = 0;
  misses = 0;
  readonly acceptance: AcceptanceCurve;

  constructor(longest: number) {
    this.verify = new VerifyCost(longest);
    this.verifyOverlapped = new VerifyCost(longest);
    this.acceptance = new AcceptanceCurve(longest);
  }
}

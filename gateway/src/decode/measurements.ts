import { AcceptanceCurve, Calibration, LinearCost, VerifyCost } from './cost-model.ts';
import { ModeSelector } from './mode-selector.ts';
import type { ProposalSource } from './types.ts';

/** Measurements that all sequences of a gateway share. */
export class Measurements {
  readonly modes = new ModeSelector();
  /** Verify calls by tokens drafted: alone, and overlapped by a draft call. */
  readonly verify: VerifyCost;
  readonly verifyOverlapped: VerifyCost;
  /** Draft calls by tokens requested: before, and concurrently with a verify call. */
  readonly draft = new LinearCost();
  readonly draftOverlapped = new LinearCost();
  readonly calibrations: Readonly<Record<ProposalSource, Calibration>> = {
    drafter: new Calibration(),
    'prompt lookup': new Calibration(),
    prediction: new Calibration(),
    grammar: new Calibration(),
    none: new Calibration(),
  };
  /** Decayed share of steps whose outcome the next one had been sent ahead for; and how often it was too small to send one. */
  expectedRight = 1;
  unexpected = 0;
  /** Blocks to verify, and times that no branch of a draft fitted. */
  blocks = 0;
  misses = 0;
  readonly acceptance: AcceptanceCurve;

  constructor(longest: number) {
    this.verify = new VerifyCost(longest);
    this.verifyOverlapped = new VerifyCost(longest);
    this.acceptance = new AcceptanceCurve(longest);
  }
}

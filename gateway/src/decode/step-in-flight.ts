import type { Branch } from '@ptp/protocol/gen/ptp/v1/drafter_pb';
import { committedTokens } from './block.ts';
import type { GrammarCursor } from './grammar-cursor.ts';
import type { Draft, DraftCall, ExpectedOutcome, StepRef, Verdict, VerifyCall } from './ports.ts';
import type { Block, GenerationStep, StepDecision } from './types.ts';

/** A step before its block is verified. Times in milliseconds on the caller's clock. */
export interface StepStart {
  readonly ref: StepRef;
  readonly startedAt: number;
  readonly decision: StepDecision;
  /** Tokens proposed; those worth verifying become the block. */
  readonly candidate: Block;
  /** Tokens requested from the redraft, 0 without one. */
  readonly redraftLength: number;
  readonly redraftMicros: number;
}

/** A step whose verify call has been sent. */
export interface StepInFlight extends StepStart {
  readonly block: Block;
  /** Token budget of its draft call; 0 without one. */
  readonly budget: number;
  draftState: 'none' | 'due' | 'sent' | 'answered';
  draft?: Draft | undefined;
  verdict?: Verdict;
  /** The outcome that the next step has been sent ahead for. */
  expected?: ExpectedOutcome;
  /** The step was sent ahead, and the verifier did not run it: the verifier was lost, or an earlier step had another outcome. */
  isLost: boolean;
  /** Arrival of the last answer. */
  answeredAt: number;
}

/** The branch of a draft that expects a single outcome; undefined once the outcome is known, or if nothing would be left to verify. */
export function expectedBranch({ draft, verdict }: StepInFlight): Branch | undefined {
  const [branch, ...others] = draft?.branches ?? [];
  return !verdict && others.length === 0 && branch && branch.tokens.length >= 2 ? branch : undefined;
}

export function verifyCall(
  { ref: step, block, draftState }: StepInFlight,
  cursor: GrammarCursor,
  after?: ExpectedOutcome,
): VerifyCall {
  const { tokens } = block;
  const overlapped = draftState === 'due';
  return { kind: 'verify', step, block: tokens, allowed: cursor.masks(tokens), overlapped, ...(after && { after }) };
}

/** @param length tokens of the only branch */
export function redraftCall(step: StepRef | undefined, length: number): DraftCall {
  const plan = { budget: length, maxBranchLength: length };
  return { kind: 'redraft', step, tokens: [], confidences: [], assumed: 0, ...plan };
}

/** Results of a finished step. */
export function finishedStep(
  step: StepInFlight & { readonly verdict: Verdict },
  end: {
    /** Tokens of the text that it committed. */
    readonly count: number;
    readonly finish: GenerationStep['finish'];
    /** End of the previous step. */
    readonly previousEndedAt: number;
    readonly branch: Branch | undefined;
  },
): GenerationStep {
  const { ref, decision, block, verdict, draft, answeredAt, startedAt } = step;
  const { count, finish, previousEndedAt, branch } = end;
  const ahead = Math.max(0, previousEndedAt - startedAt);
  const tops = verdict.tops.slice(0, count);
  return {
    tokens: committedTokens(block.tokens, verdict).slice(0, count),
    proposed: block.tokens,
    logProbabilities: verdict.logProbabilities.slice(0, count),
    ...(tops.length > 0 && { tops }),
    ...(verdict.truncated && { truncated: true }),
    stats: {
      step: ref.index,
      mode: decision.mode,
      reason: decision.reason,
      source: block.tokens.length > 0 ? block.source : 'none',
      offered: step.candidate.tokens.length,
      budget: step.budget,
      drafted: block.tokens.length,
      accepted: verdict.accepted,
      stepMicros: Math.round((answeredAt - startedAt - ahead) * 1000),
      aheadMicros: Math.round(ahead * 1000),
      verifyMicros: verdict.time.micros,
      draftMicros: draft?.micros ?? 0,
      redraftMicros: step.redraftMicros,
      verifyRunMicros: verdict.time.runMicros,
      draftRunMicros: draft?.runMicros ?? 0,
    },
    ...(branch && { branch: { accepted: branch.accepted, length: branch.tokens.length - 1 } }),
    ...(ref.traceparent && { traceparent: ref.traceparent }),
    ...(finish && { finish }),
  };
}

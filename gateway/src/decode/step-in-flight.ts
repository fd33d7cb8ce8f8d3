import type { Branch } from '@ptp/protocol/gen/ptp/v1/drafter_pb';
import { committedTokens } from './block.ts';
import type { VerifyTime } from './cost-model.ts';
import type { GrammarCursor } from './grammar-cursor.ts';
import type { PipelineParts, StepPolicy } from './pipeline-types.ts';
import type { Draft, DraftCall, ExpectedOutcome, StepRef, Verdict, VerifyCall } from './ports.ts';
import type { Block, GenerationStep, StepDecision } from './types.ts';

/** A step before its verify call is sent. Times are in milliseconds on the caller's clock. */
export interface StepStart {
  readonly ref: StepRef;
  readonly startedAt: number;
  readonly decision: StepDecision;
  /** Proposed tokens. Those worth verifying become the block. */
  readonly candidate: Block;
  /** Number of tokens requested from the redraft, or 0 without a redraft. */
  readonly redraftLength: number;
  readonly redraftMicros: number;
}

/** A step whose verify call has been sent. */
export interface StepInFlight extends StepStart {
  readonly block: Block;
  /** Token budget of the draft call, or 0 without a draft call. */
  readonly budget: number;
  draftState: 'none' | 'due' | 'sent' | 'answered';
  draft?: Draft | undefined;
  verdict?: Verdict;
  /** Outcome that the next step, if it was sent ahead, assumes. */
  expected?: ExpectedOutcome;
  /**
   * True if the step was sent ahead but not run, because the verifier was lost or an earlier step did not have the
   * assumed outcome.
   */
  isLost: boolean;
  /** Arrival time of the last answer. */
  answeredAt: number;
}

export function verifyCall(
  { ref: step, block, draftState }: StepInFlight,
  cursor: GrammarCursor,
  after?: VerifyCall['after'],
): VerifyCall {
  const { tokens } = block;
  const overlapped = draftState === 'due';
  return { kind: 'verify', step, block: tokens, allowed: cursor.masks(tokens), overlapped, ...(after && { after }) };
}

/** Returns true if a token ends the text. Such a token does not belong to the text. */
export function endsText(token: number, { request, model }: Pick<PipelineParts, 'request' | 'model'>): boolean {
  if (request.stopTokens?.includes(token)) return true;
  return !request.ignoreEndOfText && (token === model.endOfText || (model.stopTokens?.includes(token) ?? false));
}

/**
 * Returns the number of plain steps to send ahead so that the verifier does not wait for the gateway.
 *
 * @param first time of a verify call that was not sent ahead, if there was one
 */
export function plainStepsAhead(first: VerifyTime | undefined): number {
  if (!first || first.runMicros === 0) return 1;
  const { micros, queueMicros, runMicros } = first;
  return Math.max(1, Math.ceil((micros - queueMicros - runMicros) / runMicros));
}

/**
 * Returns the call that drafts what follows a step's block.
 *
 * @param assumed tokens that the steps before it are expected to commit
 */
export function draftCall(
  { ref: step, block, budget }: StepInFlight,
  assumed: number[],
  policy: StepPolicy,
): DraftCall {
  const confidences = [...assumed.map(() => 1), ...policy.chances(block)];
  // A branch starts with the target's own token.
  const maxBranchLength = policy.room(Number.POSITIVE_INFINITY) + 1;
  const tokens = [...assumed, ...block.tokens];
  return { kind: 'draft', step, tokens, confidences, assumed: assumed.length, budget, maxBranchLength };
}

/** @param length maximum number of tokens in the single branch */
export function redraftCall(step: StepRef | undefined, length: number): DraftCall {
  const plan = { budget: length, maxBranchLength: length };
  return { kind: 'redraft', step, tokens: [], confidences: [], assumed: 0, ...plan };
}

/** Returns the results of a finished step. */
export function finishedStep(
  step: StepInFlight & { readonly verdict: Verdict },
  end: {
    /** Number of committed tokens that belong to the text. */
    readonly count: number;
    readonly finish: GenerationStep['finish'];
    /** End time of the previous step. */
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

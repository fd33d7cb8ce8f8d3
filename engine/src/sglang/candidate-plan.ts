import { CANDIDATE_LIMIT } from '@ptp/protocol/manifest';
import type { SamplingParams } from '@ptp/protocol/sampling-params';
import { type Adjustment, allowedTokens, changedTokens } from '../sampling/adjust.ts';

/** The parts of a slot that decide which log-probabilities one pick needs. */
export interface Need {
  readonly sampling: SamplingParams;
  readonly adjustment: Adjustment | undefined;
  /** Number of alternatives to return. */
  readonly topCount: number;
}

/** Tokens whose log-probabilities one pick uses. */
export interface CandidatePlan {
  /** Number of most probable tokens, in [1, V]. */
  readonly top: number;
  /** Other tokens. */
  readonly named: readonly number[];
  /** True if no other token can be picked. */
  readonly complete: boolean;
}

/**
 * Rounds in which a pick is decided. Each reads more tokens than the one before, and the last reads the whole
 * vocabulary. A pick's rounds depend only on its own position, so drafts and batches do not change it.
 */
export const ROUNDS = 3;

/** Number of most probable tokens in the first round of a request without top-k. Most nuclei close within them. */
const FIRST = 64;
/** Number of tokens beyond the required ones, so that equal log-probabilities at the last one do not matter. */
const SPARE = 8;
/** Maximum number of tokens that an adjustment may raise, or a mask allow, to be requested by name. */
const NAMED_LIMIT = 256;

/** Returns the tokens that a pick uses in a round. */
export function candidatePlan(
  { sampling: { temperature, topK, topP, minP = 0 }, adjustment, topCount }: Need,
  round: number,
  vocabulary: number,
): CandidatePlan {
  const { raised, lowered } = changedTokens(adjustment);
  const allowed = adjustment?.allowed && allowedTokens(adjustment.allowed, vocabulary, NAMED_LIMIT);
  if (allowed) return { top: Math.max(1, topCount), named: allowed, complete: true };
  // Without any limit, the first tokens cannot decide.
  const unlimited = topP === 1 && minP === 0 ? CANDIDATE_LIMIT : FIRST;
  const first = temperature === 0 ? 1 : topK || unlimited;
  // Each lowered token may drop out of the most probable tokens, so that another token moves up.
  const needed = (round === 0 ? first : Math.max(first, CANDIDATE_LIMIT)) + lowered + SPARE;
  const top = Math.max(needed, topCount);
  const all = round === ROUNDS - 1 || top >= vocabulary || raised.length > NAMED_LIMIT;
  return all ? { top: vocabulary, named: [], complete: true } : { top, named: raised, complete: false };
}

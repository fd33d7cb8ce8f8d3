import { CANDIDATE_LIMIT } from '@ptp/protocol/manifest';
import {
  adjustCandidates,
  type Candidates,
  mayTruncate,
  pickTreeSparse,
  shapeCandidates,
} from '../sampling/candidates.ts';
import type { Scores } from './answer.ts';
import type { CandidatePlan, Need } from './candidate-plan.ts';

/** Rounding error of the sum of the candidates' probabilities, which the server computes in float32. */
const SUM_ERROR = 2e-6;

export interface PickedToken {
  readonly token: number;
  /** Natural logarithm of the token's probability before temperature, top-k, top-p and min-p. */
  readonly logProbability: number;
  /** True if the pick ignored improbable tokens. */
  readonly truncated: boolean;
}

/**
 * Picks the successor of a token. The candidates' log-probabilities serve as logits, because a constant added to all
 * logits changes no distribution.
 *
 * @param u [D] uniforms
 * @returns undefined if the candidates do not decide the pick
 */
export function pickSuccessor(
  scores: Scores,
  plan: CandidatePlan,
  { sampling, adjustment }: Need,
  u: ArrayLike<number>,
  vocabulary: number,
): PickedToken | undefined {
  const candidates = candidatesOf(scores, plan, vocabulary);
  const adjusted = adjustCandidates(candidates, adjustment);
  const shaped = shapeCandidates(adjusted, sampling);
  if (!shaped) return undefined;
  const truncates = plan.top >= CANDIDATE_LIMIT && mayTruncate(adjusted, sampling);
  if (!shaped.exact && !truncates) return undefined;
  const token = pickTreeSparse(u, shaped, vocabulary);
  const logProbability = candidates.logits[candidates.ids.indexOf(token)] as number;
  return { token, logProbability, truncated: !shaped.exact };
}

/**
 * Returns the planned tokens of a position. The server may have returned more, which other positions of the request
 * needed; using them would make a pick depend on the length of the draft.
 */
function candidatesOf({ top, named }: Scores, plan: CandidatePlan, vocabulary: number): Candidates {
  const topIds = top.ids.subarray(0, plan.top);
  const topLogits = top.logProbabilities.subarray(0, plan.top);
  const others = plan.named.filter((id) => !topIds.includes(id));
  const ids = new Int32Array(topIds.length + others.length);
  ids.set(topIds);
  ids.set(others, topIds.length);
  const logits = new Float32Array(ids.length);
  logits.set(topLogits);
  for (const [i, id] of others.entries()) {
    logits[topIds.length + i] = named.logProbabilities[named.ids.indexOf(id)] as number;
  }
  if (plan.complete) return { ids, logits, floor: Number.NEGATIVE_INFINITY, vocabulary };
  let rest = 1;
  for (let i = 0; i < logits.length; i++) rest -= Math.exp(logits[i] as number);
  const omitted = { least: Math.max(0, rest - SUM_ERROR), most: Math.max(0, rest) + SUM_ERROR };
  return { ids, logits, floor: topLogits.at(-1) as number, omitted, vocabulary };
}

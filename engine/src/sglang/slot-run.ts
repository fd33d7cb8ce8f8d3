import { PtpError } from '@ptp/protocol/errors';
import { uniformsAt } from '../sampling/uniforms.ts';
import type { EngineInfo, TargetOutput, TargetSlot } from '../types.ts';
import type { Scores } from './answer.ts';
import { type CandidatePlan, candidatePlan, type Need, ROUNDS } from './candidate-plan.ts';
import { type PickedToken, pickSuccessor } from './picks.ts';
import type { ScoreRequest } from './score-request.ts';

/** Returns the scores of a request: one entry for each token from `at` on. */
export type ScoreSource = (request: ScoreRequest) => Promise<Scores[]>;

/** One position of a slot: what its pick needs, and the pick once it is decided. */
interface Position {
  readonly need: Need;
  readonly u: Float32Array;
  scores?: Scores;
  picked?: PickedToken;
}

/**
 * Picks the successors of a slot's tokens. In each round, one request reads candidates for the picks that are still
 * undecided.
 *
 * @param tokens tokens of the sequence up to the end of the slot
 */
export async function runSlot(
  { at, tokens: own, sampling, uniforms, adjust, topCount = 0 }: TargetSlot,
  tokens: readonly number[],
  { vocabulary, uniformsPerPosition: depth }: EngineInfo,
  score: ScoreSource,
): Promise<TargetOutput> {
  if (!sampling || !uniforms) return { picks: new Int32Array(), logProbabilities: new Float32Array() };
  const u = uniformsAt(uniforms, at + 1, own.length, depth);
  const positions = own.map((_, k): Position => {
    return { need: { sampling, adjustment: adjust?.[k], topCount }, u: u.subarray(k * depth, (k + 1) * depth) };
  });
  for (let round = 0; round < ROUNDS; round++) {
    const first = positions.findIndex(({ picked }) => !picked);
    if (first < 0) break;
    const end = positions.findLastIndex(({ picked }) => !picked) + 1;
    const plans = positions.slice(first, end).map(({ need, picked }) => {
      return picked ? undefined : candidatePlan(need, round, vocabulary);
    });
    const scores = await score(scoreRequest(tokens.slice(0, at + end), at + first, plans));
    for (const [i, plan] of plans.entries()) {
      const position = positions[first + i] as Position;
      if (!plan) continue;
      position.scores = scores[i] as Scores;
      const picked = pickSuccessor(position.scores, plan, position.need, position.u, vocabulary);
      if (picked) position.picked = picked;
    }
  }
  return outputOf(positions, topCount);
}

/** Returns a request for all tokens of the plans. Plans are undefined for positions that are decided already. */
function scoreRequest(
  tokens: readonly number[],
  at: number,
  plans: readonly (CandidatePlan | undefined)[],
): ScoreRequest {
  const named = new Set<number>();
  let top = 1;
  // The server returns the log-probability of each token that follows in the request anyway. After the last one, the
  // probe follows, so it can be a token that the last position needs.
  const probe = plans.at(-1)?.named[0] ?? 0;
  for (const [i, plan] of plans.entries()) {
    if (!plan) continue;
    top = Math.max(top, plan.top);
    const follower = tokens[at + i + 1] ?? probe;
    for (const id of plan.named) if (id !== follower) named.add(id);
  }
  return { tokens, at, probe, top, named: [...named] };
}

function outputOf(positions: readonly Position[], topCount: number): TargetOutput {
  const picked = positions.map(({ picked }) => {
    if (!picked) throw new PtpError('internal', 'no token may be picked');
    return picked;
  });
  const truncated = picked.some(({ truncated }) => truncated);
  const tops = positions.map(({ scores }) => (scores as Scores).top);
  return {
    picks: Int32Array.from(picked, ({ token }) => token),
    logProbabilities: Float32Array.from(picked, ({ logProbability }) => logProbability),
    ...(truncated && { truncated }),
    ...(topCount > 0 && {
      topIds: Int32Array.from(tops.flatMap(({ ids }) => [...ids.subarray(0, topCount)])),
      topLogProbabilities: Float32Array.from(
        tops.flatMap(({ logProbabilities }) => [...logProbabilities.subarray(0, topCount)]),
      ),
    }),
  };
}

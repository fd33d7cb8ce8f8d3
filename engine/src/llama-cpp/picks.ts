import { adjustCandidates, mayTruncate, pickTreeSparse, shapeCandidates } from '../sampling/candidates.ts';
import { uniformsAt } from '../sampling/uniforms.ts';
import type { EngineInfo, TargetOutput, TargetSlot } from '../types.ts';
import type { Position } from './candidates.ts';

/**
 * Picks the successors of a slot's tokens.
 *
 * @param positions [T] logits after each token of the slot
 * @returns undefined if the candidates do not decide a pick, because a mask excludes nearly all of them or because
 *   there are fewer than top-k requires
 */
export function pickSuccessors(
  { at, sampling, uniforms, adjust, topCount = 0 }: TargetSlot,
  positions: readonly Position[],
  { vocabulary, uniformsPerPosition: depth }: EngineInfo,
): TargetOutput | undefined {
  if (!sampling || !uniforms) return { picks: new Int32Array(), logProbabilities: new Float32Array() };
  const u = uniformsAt(uniforms, at + 1, positions.length, depth);
  const picks = new Int32Array(positions.length);
  const logProbabilities = new Float32Array(positions.length);
  let truncated = false;
  for (const [i, position] of positions.entries()) {
    const adjusted = adjustCandidates(position, adjust?.[i]);
    const shaped = shapeCandidates(adjusted, sampling);
    if (!shaped || (!shaped.exact && !mayTruncate(adjusted, sampling))) return undefined;
    truncated ||= !shaped.exact;
    const pick = pickTreeSparse(u.subarray(i * depth, (i + 1) * depth), shaped, vocabulary);
    picks[i] = pick;
    logProbabilities[i] = (position.logits[position.ids.indexOf(pick)] as number) - position.logTotal;
  }
  return { picks, logProbabilities, ...(truncated && { truncated }), ...tops(positions, topCount) };
}

/** Returns the most probable tokens of each position before shaping. */
function tops(positions: readonly Position[], topCount: number) {
  if (topCount === 0) return {};
  const best = positions.flatMap(({ ids, logits, logTotal }) =>
    Array.from(ids, (id, i) => ({ id, logProbability: (logits[i] as number) - logTotal }))
      .sort((a, b) => b.logProbability - a.logProbability || a.id - b.id)
      .slice(0, topCount),
  );
  return {
    topIds: Int32Array.from(best, ({ id }) => id),
    topLogProbabilities: Float32Array.from(best, ({ logProbability }) => logProbability),
  };
}

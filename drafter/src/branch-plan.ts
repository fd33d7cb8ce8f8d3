/**
 * Divides a step's budget among the possible outcomes of the verification in progress (partial quadratic decoding,
 * docs/ptp.md). Branch m continues the text if exactly m tokens of the block are accepted. For confidences c, outcome m
 * has the probability A_m = (1 - c_m) * prod_{k < m} c_k, and acceptance of the whole block A_n = prod_k c_k.
 */

/** Expected number of correct tokens in a branch of 0 to max tokens. Both curves are concave. */
export interface YieldCurves {
  /** Curve of a branch after the whole block. */
  readonly whole: readonly number[];
  /** Curve of a branch that starts where the block has a wrong token. */
  readonly afterMiss: readonly number[];
}

/** Returns the probability of each number of accepted tokens, [n + 1], for confidences [n] in [0, 1]. */
export function outcomeChances(confidences: readonly number[]): number[] {
  const chances: number[] = [];
  let reached = 1;
  for (const confidence of confidences) {
    chances.push(reached * (1 - confidence));
    reached *= confidence;
  }
  chances.push(reached);
  return chances;
}

/**
 * Maximizes sum_m A_m * (H_m(B_m) - H_m(1)) over branch lengths B_m that sum to at most the budget, greedily by
 * marginal gain. The first token of a branch predicts the target's own pick, which verification yields anyway. A branch
 * therefore gains only from its second token on and starts with two.
 *
 * @param confidences [n] confidences in the tokens of the block under verification
 * @param curves yield curves H_m, each [max + 1]
 * @param budget maximum number of tokens over all branches, at least 1
 * @param maxLength maximum length of a branch. If it is 1, the result is one branch of one token for the likeliest
 *   outcome
 * @returns [n + 1] branch lengths, 0 for an outcome without a branch
 */
export function planBranches(
  confidences: readonly number[],
  curves: YieldCurves,
  budget: number,
  maxLength: number,
): number[] {
  const chances = outcomeChances(confidences);
  const lengths = chances.map(() => 0);
  if (budget < 2 || maxLength < 2) {
    lengths[chances.indexOf(Math.max(...chances))] = 1;
    return lengths;
  }
  const gainOf = (m: number, length: number): number => {
    const h = m < confidences.length ? curves.afterMiss : curves.whole;
    const at = (b: number): number => h[b] ?? h.at(-1) ?? 0;
    return at(length + 1) - at(length);
  };
  for (let left = budget; left > 0; ) {
    let best = -1;
    let bestGain = 0;
    for (let m = 0; m < chances.length; m++) {
      const length = lengths[m] as number;
      const cost = length === 0 ? 2 : 1;
      if (cost > left || length + cost > maxLength) continue;
      const gain = ((chances[m] as number) * gainOf(m, Math.max(length, 1))) / cost;
      if (gain > bestGain) [best, bestGain] = [m, gain];
    }
    if (best < 0) break;
    const cost = lengths[best] === 0 ? 2 : 1;
    lengths[best] = (lengths[best] as number) + cost;
    left -= cost;
  }
  return lengths;
}

import { PtpError } from '@ptp/protocol/errors';
import { treeDepth } from '@ptp/protocol/sampling-params';

const f32 = Math.fround;

/** A next-token distribution after temperature, min-p, top-k and top-p. */
export interface ShapedDistribution {
  /** [V] probabilities in vocabulary order, 0 for tokens not kept, renormalised over the kept ones. */
  readonly probabilities: Float32Array;
  /** Ids of the kept tokens, ascending; never empty. All have a probability above 0. */
  readonly kept: readonly number[];
}

/**
 * Pick(u, P) = min { j : F_j > u Z }, by inverse transform sampling over the kept tokens in vocabulary order
 * (PTP paper, arXiv 2512.21323; docs/ptp.md, "Sampling as a function"). F is the float32 running sum of the
 * probabilities and Z its last value, so rounding in the sum cannot leave a u without a token: for u <= 1 - 2^-24,
 * which uniforms.ts never exceeds, u Z stays below Z in float32. A u even closer to 1 gives the last kept token.
 *
 * @param u in [0, 1), from uniforms.ts
 * @returns the token's id
 */
export function pick(u: number, { probabilities, kept }: ShapedDistribution): number {
  const total = kept.reduce((sum, id) => f32(sum + (probabilities[id] as number)), 0);
  const threshold = f32(u * total);
  let cumulative = 0;
  for (const id of kept) {
    cumulative = f32(cumulative + (probabilities[id] as number));
    if (cumulative > threshold) return id;
  }
  return kept.at(-1) as number;
}

/**
 * Pick by the tree: the leaves of a complete binary tree of depth D are the token ids 0 .. 2^D - 1, those from V on
 * without probability. From the root, step d goes to the left half of the node's ids if u_d (P(left) + P(right)) <
 * P(left), otherwise to the right half; so u_d decides bit D - 1 - d of the token. The conditional probabilities along
 * a path multiply to the leaf's, hence the draw is exact if the u_d are independent and uniform.
 *
 * A change in one token's probability moves only the D borders on the path to it, whereas it moves all later borders of
 * `pick`: two similar distributions agree more often for the same u, and acceptance depends on that.
 *
 * Float32 throughout: a node's sum is the rounded sum of its two halves' sums, the product is rounded, then compared. A
 * half without probability is never entered, whatever u is, so the token is always a kept one.
 *
 * @param u [D] in [0, 1), from uniforms.ts; D = uniformsPerPosition('tree', V)
 * @returns the token's id
 * @throws PtpError `internal` if there are not D uniforms
 */
export function pickTree(u: ArrayLike<number>, { probabilities }: ShapedDistribution): number {
  const depth = treeDepth(probabilities.length);
  if (u.length !== depth) {
    throw new PtpError(
      'internal',
      `a pick among ${probabilities.length} tokens needs ${depth} uniforms, got ${u.length}`,
    );
  }
  const sums = nodeSums(probabilities, depth);
  let node = 1;
  for (let d = 0; d < depth; d++) {
    const [left, right] = [sums[2 * node] as number, sums[2 * node + 1] as number];
    const goesLeft = f32((u[d] as number) * (sums[node] as number)) < left || right === 0;
    node = 2 * node + (goesLeft ? 0 : 1);
  }
  return node - 2 ** depth;
}

/**
 * [2^(depth + 1)] float32 sums of all nodes: the root at 1, the halves of node n at 2n and 2n + 1, token t at 2^depth +
 * t.
 */
function nodeSums(probabilities: Float32Array, depth: number): Float32Array {
  const leaves = 2 ** depth;
  const sums = new Float32Array(2 * leaves);
  sums.set(probabilities, leaves);
  for (let node = leaves - 1; node > 0; node--) {
    sums[node] = (sums[2 * node] as number) + (sums[2 * node + 1] as number);
  }
  return sums;
}

import { PtpError } from '@ptp/protocol/errors';
import { type SamplingParams, treeDepth } from '@ptp/protocol/sampling-params';
import { type Adjustment, isAllowed } from '../sampling/adjust.ts';

const f32 = Math.fround;

/** Next-token distribution after temperature, min-p, top-k and top-p. */
export interface ShapedDistribution {
  /** [V] probabilities in vocabulary order, renormalized over the kept tokens. All other tokens have probability 0. */
  readonly probabilities: Float32Array;
  /** Ids of the kept tokens in ascending order. There is at least one, and each has a probability above 0. */
  readonly kept: readonly number[];
}

/**
 * Shapes logits into the distribution from which a token is picked, in this order: temperature, min-p, top-k, top-p,
 * renormalization. All arithmetic is float32, because this is the reference for the sampler in the ONNX graph.
 *
 * Tokens are ranked by descending probability, and tied tokens by ascending id. A token of rank r is kept if r < topK
 * and if the probabilities of the tokens ranked above it, renormalized within top-k, sum to less than topP (nucleus
 * sampling: Holtzman et al. 2020; the token that crosses topP is kept). Before that, min-p removes tokens less probable
 * than minP times the most probable token (Nguyen et al. 2024). topK = 0, topP = 1 and minP = 0 disable these limits.
 * Temperature 0 keeps only the argmax. Tokens with a float32 probability of 0 are not kept.
 *
 * @param logits [V] float32 logits, V >= 1. -Infinity excludes a token
 * @throws PtpError `internal` if a logit is NaN or +Infinity, or if all are -Infinity
 */
export function shape(logits: Float32Array, params: SamplingParams): ShapedDistribution {
  const best = argmax(logits);
  if (params.temperature === 0) return renormalize(logits.length, [best], [1]);

  const temperature = f32(params.temperature);
  const scaled = logits.map((logit) => logit / temperature);
  const top = scaled[best] as number;
  const weight = (id: number): number => f32(Math.exp(f32((scaled[id] as number) - top)));

  const minP = f32(params.minP ?? 0);
  const ranked = rank(scaled)
    .slice(0, params.topK || logits.length)
    .filter((id) => weight(id) >= minP);
  const weights = ranked.map(weight);
  const total = sum(weights);
  const topP = f32(params.topP);

  let above = 0;
  const keptWeights: number[] = [];
  for (const w of weights) {
    if (w === 0 || (topP < 1 && above >= topP)) break;
    keptWeights.push(w);
    above = f32(above + f32(w / total));
  }
  return renormalize(logits.length, ranked, keptWeights);
}

/** Returns the id of the largest logit, and the lowest id on ties. */
function argmax(logits: Float32Array): number {
  let best = 0;
  for (let id = 0; id < logits.length; id++) {
    const logit = logits[id] as number;
    if (Number.isNaN(logit)) throw new PtpError('internal', `logit of token ${id} is NaN`);
    if (logit > (logits[best] as number)) best = id;
  }
  if (!Number.isFinite(logits[best])) throw new PtpError('internal', `the largest logit is ${logits[best]}`);
  return best;
}

/** Returns the ids by descending logit. Ids with equal logits are in ascending order. */
function rank(logits: Float32Array): number[] {
  const ids = Array.from(logits, (_, id) => id);
  return ids.sort((a, b) => (logits[b] as number) - (logits[a] as number) || a - b);
}

/** Keeps the first `weights.length` ranked tokens, with probabilities that sum to 1. */
function renormalize(size: number, ranked: readonly number[], weights: readonly number[]): ShapedDistribution {
  const kept = ranked.slice(0, weights.length);
  const total = sum(weights);
  const probabilities = new Float32Array(size);
  for (const [rank, id] of kept.entries()) probabilities[id] = (weights[rank] as number) / total;
  return { probabilities, kept: kept.sort((a, b) => a - b) };
}

function sum(values: readonly number[]): number {
  return values.reduce((total, value) => f32(total + value), 0);
}

/**
 * Pick(u, P) = min { j : F_j > u Z }, by inverse transform sampling over the kept tokens in vocabulary order (PTP
 * paper, arXiv 2512.21323; docs/ptp.md, "Sampling as a function"). F is the float32 running sum of the probabilities
 * and Z is its last value, so rounding in the sum cannot leave a u without a token: for u <= 1 - 2^-24, which
 * uniforms.ts never exceeds, u Z stays below Z in float32. A u even closer to 1 gives the last kept token.
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
 * Picks a token by walking down a tree. The leaves of a complete binary tree of depth D are the token ids 0 .. 2^D - 1;
 * ids from V on have probability 0. From the root, step d goes to the left child if u_d (P(left) + P(right)) < P(left),
 * otherwise to the right child, so u_d decides bit D - 1 - d of the token. The product of the conditional probabilities
 * along a path is the probability of its leaf, so the draw is exact if the u_d are independent and uniform.
 *
 * A change in one token's probability moves only the D thresholds on the path to the token. In `pick`, it moves all
 * later thresholds. Two similar distributions therefore agree more often for the same u, which raises acceptance.
 *
 * All arithmetic is float32: the sum of a node is the rounded sum of its two children, and the product is rounded
 * before the comparison. The walk never enters a child without probability, so it always ends at a kept token.
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
 * Returns the float32 sum of every node of the tree, as an array of length 2^(depth + 1): the root is at index 1, the
 * children of node n are at 2n and 2n + 1, and the leaf of token t is at 2^depth + t.
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

/**
 * Applies an adjustment to float32 logits [V]. This is the reference for `adjusted` in
 * training/src/ptp_train/export/graphs/adjust.py.
 */
export function adjusted(logits: Float32Array, { scaled, scale, biased, biases, allowed }: Adjustment): Float32Array {
  const out = logits.slice();
  const factor = Math.fround(scale);
  for (const id of scaled) {
    const logit = out[id] as number;
    out[id] = logit > 0 ? logit / factor : logit * factor;
  }
  for (const [i, id] of biased.entries()) out[id] = (out[id] as number) + (biases[i] as number);
  if (allowed) for (const id of out.keys()) if (!isAllowed(allowed, id)) out[id] = Number.NEGATIVE_INFINITY;
  return out;
}

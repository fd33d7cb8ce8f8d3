import { PtpError } from '@ptp/protocol/errors';
import { type SamplingParams, treeDepth } from '@ptp/protocol/sampling-params';
import { type Adjustment, isAllowed } from './adjust.ts';

const f32 = Math.fround;
/** Half a unit in the last place of 1 in float32. A smaller probability does not change a float32 sum near 1. */
const EPSILON = 2 ** -24;

/** Logits of some tokens. All other logits are at most `floor`. */
export interface Candidates {
  /** Raw logits, keyed by token id. */
  readonly logits: ReadonlyMap<number, number>;
  /** Upper limit of the omitted logits, or -Infinity if no logit is omitted. */
  readonly floor: number;
  /** Number of tokens in the vocabulary. */
  readonly vocabulary: number;
}

/** Tokens with a probability above 0, and their probabilities. */
export interface SparseDistribution {
  /** Ids in ascending order. There is at least one. */
  readonly ids: readonly number[];
  /** [ids.length] float32 probabilities, which sum to 1. */
  readonly probabilities: readonly number[];
  /**
   * True if this is the distribution over the whole vocabulary. The probabilities of omitted tokens are then below
   * EPSILON.
   */
  readonly exact: boolean;
}

/** Applies an adjustment. Each adjusted token must be a candidate, unless the adjustment lowers its logit. */
export function adjustCandidates(candidates: Candidates, adjustment: Adjustment | undefined): Candidates {
  if (!adjustment) return candidates;
  const { floor, vocabulary } = candidates;
  const { scaled, scale, biased, biases, allowed } = adjustment;
  const changed = new Map(candidates.logits);
  const factor = f32(scale);
  for (const id of scaled) {
    const logit = changed.get(id);
    if (logit !== undefined) changed.set(id, f32(logit > 0 ? logit / factor : logit * factor));
  }
  for (const [i, id] of biased.entries()) {
    const logit = changed.get(id);
    if (logit !== undefined) changed.set(id, f32(logit + (biases[i] as number)));
  }
  if (allowed) for (const id of changed.keys()) if (!isAllowed(allowed, id)) changed.delete(id);
  return { logits: changed, floor, vocabulary };
}

/**
 * Shapes candidates in the same way as `shape` in testing/reference-sampler.ts shapes all logits: temperature, min-p,
 * top-k, top-p, renormalization, in float32. Uses only candidates above the floor, because only the ranks of these are
 * certain. The result is not `exact` if tokens other than the candidates could belong to the distribution. In that
 * case, top-p is relative to the sum of the candidates' probabilities.
 *
 * @returns undefined if no candidate is above the floor
 * @throws PtpError `internal` if a logit is NaN or +Infinity
 */
export function shapeCandidates(
  { logits, floor, vocabulary }: Candidates,
  { temperature, topK, topP, minP = 0 }: SamplingParams,
): SparseDistribution | undefined {
  const certain = rank(logits, floor);
  const best = certain[0];
  if (!best) return undefined;
  if (temperature === 0) return { ids: [best.id], probabilities: [1], exact: true };

  const divisor = f32(temperature);
  const top = f32(best.logit / divisor);
  const weightOf = (logit: number) => f32(Math.exp(f32(f32(logit / divisor) - top)));
  const kept = certain
    .slice(0, topK || certain.length)
    .map(({ id, logit }) => ({ id, weight: weightOf(logit) }))
    .filter(({ weight }) => weight > 0 && weight >= f32(minP));
  // Tokens at or below the floor are excluded by top-k if it is already full, and by min-p if a token with the logit
  // `floor` would be. Otherwise, the weights of these tokens sum to at most `rest`.
  const closed = (topK > 0 && certain.length >= topK) || weightOf(floor) < f32(minP);
  const rest = closed ? 0 : (vocabulary - certain.length) * weightOf(floor);
  const { mass, ...distribution } = nucleus(kept, f32(topP));
  const total = sumOf(kept);
  const nucleusCloses = topP < 1 && mass * total >= f32(topP) * (total + rest);
  return { ...distribution, exact: rest <= EPSILON * total || nucleusCloses };
}

/**
 * Keeps the ranked tokens before which the probabilities sum to less than `topP`. `mass` is the sum of the kept tokens'
 * weights.
 */
function nucleus(ranked: readonly Weighted[], topP: number): Omit<SparseDistribution, 'exact'> & { mass: number } {
  const total = sumOf(ranked);
  let [above, mass] = [0, 0];
  const kept = ranked.filter(({ weight }) => {
    const isKept = topP === 1 || above < topP;
    above = f32(above + f32(weight / total));
    if (isKept) mass = above;
    return isKept;
  });
  const keptTotal = sumOf(kept);
  const ascending = kept.sort((a, b) => a.id - b.id);
  return {
    ids: ascending.map(({ id }) => id),
    probabilities: ascending.map(({ weight }) => f32(weight / keptTotal)),
    mass,
  };
}

/** Sorts the candidates above the floor by descending logit. Candidates with equal logits are sorted by ascending id. */
function rank(logits: ReadonlyMap<number, number>, floor: number) {
  const ranked: { id: number; logit: number }[] = [];
  for (const [id, logit] of logits) {
    if (Number.isNaN(logit) || logit === Number.POSITIVE_INFINITY) {
      throw new PtpError('internal', `logit of token ${id} is ${logit}`);
    }
    if (logit > floor) ranked.push({ id, logit });
  }
  return ranked.sort((a, b) => b.logit - a.logit || a.id - b.id);
}

type Weighted = { readonly id: number; readonly weight: number };

function sumOf(tokens: readonly Weighted[]): number {
  return tokens.reduce((total, { weight }) => f32(total + weight), 0);
}

/** Picks the same token as `pickTree` in testing/reference-sampler.ts, in time independent of the vocabulary's size. */
export function pickTreeSparse(
  u: ArrayLike<number>,
  { ids, probabilities }: SparseDistribution,
  vocabulary: number,
): number {
  const depth = treeDepth(vocabulary);
  /** Returns the first index in [from, to) whose id is at least `middle`, and `to` if there is none. */
  const split = (from: number, to: number, middle: number) => {
    let [low, high] = [from, to];
    while (low < high) {
      const index = (low + high) >>> 1;
      if ((ids[index] as number) < middle) low = index + 1;
      else high = index;
    }
    return low;
  };
  /** Sums the probabilities at indices [from, to), all in one node, in the tree's order; `first` is its first leaf. */
  const sum = (from: number, to: number, first: number, size: number): number => {
    if (to - from <= 1) return from === to ? 0 : (probabilities[from] as number);
    const middle = split(from, to, first + size / 2);
    return f32(sum(from, middle, first, size / 2) + sum(middle, to, first + size / 2, size / 2));
  };
  let [from, to, first] = [0, ids.length, 0];
  for (let d = 0; d < depth; d++) {
    const half = 2 ** (depth - 1 - d);
    const middle = split(from, to, first + half);
    const left = sum(from, middle, first, half);
    const total = f32(left + sum(middle, to, first + half, half));
    const goesLeft = f32((u[d] as number) * total) < left || middle === to;
    if (goesLeft) to = middle;
    else [from, first] = [middle, first + half];
  }
  return ids[from] as number;
}

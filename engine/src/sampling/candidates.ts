import { PtpError } from '@ptp/protocol/errors';
import { type SamplingParams, treeDepth } from '@ptp/protocol/sampling-params';
import { type Adjustment, isAllowed } from './adjust.ts';

const f32 = Math.fround;
/** Half a unit in the last place of 1 in float32. A smaller probability does not change a float32 sum near 1. */
const EPSILON = 2 ** -24;
/**
 * Number of candidates that a grammar must leave so that the rest of the vocabulary can be ignored. Equal to
 * llama.cpp's default top-k.
 */
const FEWEST = 40;

/** Logits of some tokens. All other logits are at most `floor`. */
export interface Candidates {
  /** [n] distinct token ids. */
  readonly ids: Int32Array;
  /** [n] raw logits of these tokens. */
  readonly logits: Float32Array;
  /** Upper limit of the omitted logits, or -Infinity if no logit is omitted. */
  readonly floor: number;
  /** Limits of the sum of exp(logit) over the omitted logits, if it is known. */
  readonly omitted?: { readonly least: number; readonly most: number };
  /** Number of tokens in the vocabulary. */
  readonly vocabulary: number;
}

/** Tokens with a probability above 0, and their probabilities. */
export interface SparseDistribution {
  /** [n] ids in ascending order, n >= 1. */
  readonly ids: Int32Array;
  /** [n] probabilities, which sum to 1. */
  readonly probabilities: Float32Array;
  /**
   * True if this is the distribution over the whole vocabulary. The probabilities of omitted tokens are then below
   * EPSILON.
   */
  readonly exact: boolean;
}

/** Applies an adjustment. Each adjusted token must be a candidate, unless the adjustment lowers its logit. */
export function adjustCandidates(candidates: Candidates, adjustment: Adjustment | undefined): Candidates {
  if (!adjustment) return candidates;
  const { scaled, scale, biased, biases, allowed } = adjustment;
  const { ids } = candidates;
  const logits = candidates.logits.slice();
  let lowered = 0;
  if (scaled.length > 0 || biased.length > 0) {
    const indices = new Map<number, number>();
    for (let i = 0; i < ids.length; i++) indices.set(ids[i] as number, i);
    const factor = f32(scale);
    for (const id of scaled) {
      const i = indices.get(id);
      if (i === undefined) lowered++;
      else logits[i] = (logits[i] as number) > 0 ? (logits[i] as number) / factor : (logits[i] as number) * factor;
    }
    for (const [k, id] of biased.entries()) {
      const i = indices.get(id);
      if (i === undefined) lowered++;
      else logits[i] = (logits[i] as number) + (biases[k] as number);
    }
  }
  const { floor, omitted } = candidates;
  const least = omitted && !allowed ? Math.max(0, omitted.least - lowered * Math.exp(floor)) : 0;
  const changed = { ...candidates, logits, ...(omitted && { omitted: { ...omitted, least } }) };
  if (!allowed) return changed;
  const isKept = (_: number, i: number) => isAllowed(allowed, ids[i] as number);
  return { ...changed, ids: ids.filter(isKept), logits: logits.filter(isKept) };
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
  candidates: Candidates,
  { temperature, topK, topP, minP = 0 }: SamplingParams,
): SparseDistribution | undefined {
  const { ids, logits, floor } = candidates;
  const ranked = rank(candidates);
  const best = ranked[0];
  if (best === undefined) return undefined;
  if (temperature === 0) return { ids: ids.slice(best, best + 1), probabilities: Float32Array.of(1), exact: true };

  const divisor = f32(temperature);
  const top = f32((logits[best] as number) / divisor);
  const weightOf = (logit: number) => f32(Math.exp(f32(f32(logit / divisor) - top)));
  // Weights fall with the rank, so min-p and top-p each keep the first ones.
  const weights = new Float32Array(Math.min(topK || ranked.length, ranked.length));
  let count = 0;
  for (; count < weights.length; count++) {
    const weight = weightOf(logits[ranked[count] as number] as number);
    if (weight === 0 || weight < f32(minP)) break;
    weights[count] = weight;
  }
  const eligible = weights.subarray(0, count);
  const total = sumOf(eligible);
  // Tokens at or below the floor are excluded by top-k if it is already full, and by min-p if a token with the logit
  // `floor` would be.
  const isClosed = (topK > 0 && ranked.length >= topK) || weightOf(floor) < f32(minP);
  const rest = isClosed ? { least: 0, most: 0 } : restLimits(candidates, ranked.length, weightOf);
  if (topK > 0 || minP > 0) rest.least = 0;
  const least = nucleus(eligible, total + rest.least, f32(topP));
  const nucleusCloses = topP < 1 && least.mass * (total + rest.least) >= f32(topP) * (total + rest.most);
  const exact = rest.most <= EPSILON * total || nucleusCloses;
  const { length } = exact ? least : nucleus(eligible, total, f32(topP));
  const kept = ranked.slice(0, length).map((i) => ids[i] as number);
  return { ...ascending(kept, eligible.subarray(0, length)), exact };
}

/**
 * Returns true if a pick may ignore all tokens except the candidates, although others belong to the distribution. The
 * output then says so (`truncated`).
 */
export function mayTruncate({ ids }: Candidates, { topK }: SamplingParams): boolean {
  return topK === 0 && ids.length >= FEWEST;
}

/**
 * Limits the sum of the weights of all tokens except the `certain` candidates above the floor. Each of these tokens has
 * at most the floor's weight.
 *
 * If the sum S of exp(logit) over the N omitted tokens is known, so are two limits of the sum of exp(logit / T), because
 * all logits are at most the floor f: S exp(f / T) / exp(f), and N exp(log(S / N) / T) by Jensen's inequality. For T < 1
 * the first one is the upper limit, for T > 1 the second one; for T = 1 both are S.
 */
function restLimits(
  { ids, floor, omitted, vocabulary }: Candidates,
  certain: number,
  weightOf: (logit: number) => number,
): { least: number; most: number } {
  const byCount = (vocabulary - certain) * weightOf(floor);
  if (!omitted) return { least: 0, most: byCount };
  const others = vocabulary - ids.length;
  const limitsOf = (sum: number): [number, number] => {
    return [(sum / Math.exp(floor)) * weightOf(floor), others * weightOf(Math.log(sum / others))];
  };
  const uncertain = (ids.length - certain) * weightOf(floor);
  const most = Math.min(byCount, uncertain + Math.max(...limitsOf(omitted.most)));
  return { least: Math.min(most, ...limitsOf(omitted.least)), most };
}

/** Returns the indices of the candidates above the floor by descending logit, and by ascending id for equal logits. */
function rank({ ids, logits, floor }: Candidates): number[] {
  const before = (a: number, b: number) =>
    (logits[a] as number) > (logits[b] as number) ||
    (logits[a] === logits[b] && (ids[a] as number) < (ids[b] as number));
  const ranked: number[] = [];
  let isSorted = true;
  for (let i = 0; i < logits.length; i++) {
    const logit = logits[i] as number;
    if (Number.isNaN(logit) || logit === Number.POSITIVE_INFINITY) {
      throw new PtpError('internal', `logit of token ${ids[i]} is ${logit}`);
    }
    if (logit <= floor) continue;
    const last = ranked[ranked.length - 1];
    isSorted &&= last === undefined || before(last, i);
    ranked.push(i);
  }
  // Engines return most candidates in this order.
  return isSorted ? ranked : ranked.sort((a, b) => (before(a, b) ? -1 : 1));
}

/**
 * Returns the number of ranked tokens before which the probabilities sum to less than `topP`. `mass` is the sum of
 * these tokens' probabilities.
 */
function nucleus(weights: Float32Array, total: number, topP: number): { length: number; mass: number } {
  let [length, mass] = [0, 0];
  while (length < weights.length && (topP === 1 || mass < topP)) {
    mass = f32(mass + f32((weights[length++] as number) / total));
  }
  return { length, mass };
}

/** Returns the ranked tokens in ascending order, with probabilities that sum to 1. */
function ascending(ranked: readonly number[], weights: Float32Array) {
  const [count, total] = [ranked.length, sumOf(weights)];
  // A typed array sorts numbers without calls of a function, so each number holds a token's id and rank.
  const keys = new Float64Array(count);
  for (let rank = 0; rank < count; rank++) keys[rank] = (ranked[rank] as number) * count + rank;
  keys.sort();
  const ids = new Int32Array(count);
  const probabilities = new Float32Array(count);
  for (let i = 0; i < count; i++) {
    const id = Math.floor((keys[i] as number) / count);
    ids[i] = id;
    probabilities[i] = (weights[(keys[i] as number) - id * count] as number) / total;
  }
  return { ids, probabilities };
}

function sumOf(weights: Float32Array): number {
  let total = 0;
  for (let i = 0; i < weights.length; i++) total = f32(total + (weights[i] as number));
  return total;
}

/**
 * Picks the same token as `pickTree` in testing/reference-sampler.ts, in time independent of the vocabulary's size. Only
 * the tree's forks matter, which are the nodes with tokens on both sides: at any other node, the walk can go only one
 * way, and the sum is the child's.
 */
export function pickTreeSparse(
  u: ArrayLike<number>,
  { ids, probabilities }: SparseDistribution,
  vocabulary: number,
): number {
  const depth = treeDepth(vocabulary);
  // Sums of each fork, at the index of the first token on its right side.
  const left = new Float32Array(ids.length);
  const both = new Float32Array(ids.length);
  const sum = (from: number, to: number): number => {
    if (to - from === 1) return probabilities[from] as number;
    const middle = middleOf(ids, from, to);
    left[middle] = sum(from, middle);
    both[middle] = (left[middle] as number) + sum(middle, to);
    return both[middle] as number;
  };
  sum(0, ids.length);
  let [from, to] = [0, ids.length];
  while (to - from > 1) {
    const middle = middleOf(ids, from, to);
    const step = depth - 1 - forkBit(ids, from, to);
    if (f32((u[step] as number) * (both[middle] as number)) < (left[middle] as number)) to = middle;
    else from = middle;
  }
  return ids[from] as number;
}

/** Returns the highest bit in which the ids at indices [from, to) differ. */
function forkBit(ids: Int32Array, from: number, to: number): number {
  return 31 - Math.clz32((ids[from] as number) ^ (ids[to - 1] as number));
}

/** Returns the first index in [from, to) whose id has the bit of the fork. */
function middleOf(ids: Int32Array, from: number, to: number): number {
  const bit = forkBit(ids, from, to);
  let [low, high] = [from + 1, to - 1];
  while (low < high) {
    const index = (low + high) >>> 1;
    if ((((ids[index] as number) >> bit) & 1) === 0) low = index + 1;
    else high = index;
  }
  return low;
}

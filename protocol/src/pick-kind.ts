/**
 * How a position's uniforms choose its token. Both are exact: with uniforms drawn at random, token t comes with its
 * probability.
 *
 * - `cdf`: one uniform, inverse transform sampling as in the PTP paper (arXiv 2512.21323); `pick`.
 * - `tree`: ceil(log2 V) uniforms, a walk down the binary tree over token ids, which is our own; `pickTree`.
 */
export type PickKind = 'cdf' | 'tree';

/** D, uniforms per position: 1 for `cdf`; ceil(log2 vocabulary), at least 1, for `tree`. */
export function uniformsPerPosition(kind: PickKind, vocabulary: number): number {
  return kind === 'cdf' ? 1 : treeDepth(vocabulary);
}

/** Levels of the tree over `vocabulary` tokens, at least 1. */
export function treeDepth(vocabulary: number): number {
  return Math.max(1, 32 - Math.clz32(vocabulary - 1));
}

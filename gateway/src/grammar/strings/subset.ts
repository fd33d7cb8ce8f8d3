import type { Term } from './terms.ts';

/** Maximum number of comparisons in one proof, because the number of alignments of optional parts is exponential. */
const LIMIT = 64;

/**
 * Returns true if every match of `small` is provably a match of `big`. The proof compares only the structure of the
 * terms, so a result of false proves nothing.
 */
export function isSubset(small: Term, big: Term, budget = { left: LIMIT }): boolean {
  if (small === big || small.kind === 'nothing') return true;
  if (small.kind === 'empty') return big.nullable;
  if (--budget.left < 0) return false;
  if (big.kind === 'cat') {
    if (big.first.nullable && isSubset(small, big.rest, budget)) return true;
    if (small.kind === 'cat') {
      return isSubset(small.first, big.first, budget) && isSubset(small.rest, big.rest, budget);
    }
    return big.rest.nullable && isSubset(small, big.first, budget);
  }
  if (big.kind !== 'repeat') return false;
  if (small.kind !== 'repeat') return big.min <= 1 && big.max >= 1 && isSubset(small, big.of, budget);
  return small.of === big.of && small.min >= big.min && small.max <= big.max;
}

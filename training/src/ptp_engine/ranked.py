"""Picks among the most probable tokens on the host. These tokens are so few that Python is faster than kernels on a device."""

from bisect import bisect_left

import numpy as np

UNIT = 2.0**40
"""Weight of the most probable token. Weights are integers, and the sum of 2^20 of them fits into 60 bits."""
UNIFORM_BITS = 24
LAST_ID = np.iinfo(np.int32).max


def weigh(values: np.ndarray, top: np.ndarray, min_p: np.ndarray) -> np.ndarray:
    """Returns int64 weights of logits [R, K], 0 for tokens that min-p removes. top: largest logit [R, 1]."""
    weights = np.exp(values - top)
    return np.where(weights < min_p, 0, weights * np.float32(UNIT)).astype(np.int64)


def order_ties(ids: np.ndarray, values: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, ...]:
    """Returns the same arrays [R, K], with tied tokens in ascending order of their ids. `values` are in descending
    order.
    """
    if not (values[:, 1:] == values[:, :-1]).any():
        return ids, values, scores
    order = np.lexsort((ids, -values))
    return np.take_along_axis(ids, order, -1), values, np.take_along_axis(scores, order, -1)


def pick_ranked(
    ids: np.ndarray, values: np.ndarray, parameters: np.ndarray, totals: np.ndarray, u: np.ndarray, complete: bool
) -> np.ndarray:
    """Picks among the K tokens with the largest logits.

    ids, values: [R, K] tokens by rank, and their logits after temperature. parameters: [R, 3] top_k, top_p, min_p.
    totals: [R] sum of all tokens' weights, for rows without top_k. u: [R, D]. complete: true if the K tokens are
    the whole vocabulary. Returns the column of each pick [R], or -1 if the K tokens do not contain the whole top-k and
    nucleus.
    """
    top_k, top_p, min_p = (parameters[:, i : i + 1] for i in range(3))
    weights = weigh(values, values[:, :1], min_p)
    weights[(top_k > 0) & (np.arange(ids.shape[1]) >= top_k)] = 0
    sums = weights.cumsum(-1)
    mass = np.where(top_p >= 1, np.inf, top_p.astype(np.float64) * np.where(top_k > 0, sums[:, -1:], totals[:, None]))
    kept = (sums - weights < mass) & (weights > 0)
    counts = kept.sum(-1)
    every = np.arange(len(ids))
    known = ((top_k <= ids.shape[1]) | (top_p >= 1))[:, 0]  # The mass of a larger top-k is not known yet.
    # Other tokens can be equal to the last one.
    closed = (counts > 0) & (complete | (known & (values[every, counts - 1] > values[:, -1])))

    few = slice(max(1, counts.max()))  # The kept tokens come first.
    by_id = np.where(kept, ids, LAST_ID)[:, few].argsort(-1)
    sums = np.where(kept, weights, 0)[every[:, None], by_id].cumsum(-1)
    bits = (u * 2**UNIFORM_BITS).astype(np.int64)
    rows = (ids[every[:, None], by_id], sums, counts, bits)
    chosen = [walk(*row) for row in zip(*(column.tolist() for column in rows), strict=True)]
    return np.where(closed, by_id[every, chosen], -1)


def walk(ids: list[int], sums: list[int], count: int, bits: list[int]) -> int:
    """Returns the index of the token at which a walk down the tree over the token ids ends (`pickTreeSparse` in
    engine/src/sampling/candidates.ts).

    ids: `count` tokens in ascending order. sums: sums of their positive weights, each including the token's own; other
    tokens have the weight 0. bits: uniforms, times 2^24.
    """
    first, end, before, start, half = 0, count, 0, 0, 1 << len(bits)
    for u in bits:
        if end - first <= 1:
            break
        half >>= 1
        middle = bisect_left(ids, start + half, first, end)
        if middle == first:
            start += half
        elif middle < end:
            left = sums[middle - 1] - before
            if u * (sums[end - 1] - before) >= left << UNIFORM_BITS:
                first, start, before = middle, start + half, sums[middle - 1]
            else:
                end = middle
    return first

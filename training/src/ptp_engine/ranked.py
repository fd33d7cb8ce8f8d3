"""Picks among the most probable tokens, on the host: they are few, so that Python is faster than kernels on a device."""

from bisect import bisect_left

import numpy as np

UNIT = 2.0**40
"""Weight of the most probable token. Weights are integers, and the sum of 2^20 of them fits into 60 bits."""
UNIFORM_BITS = 24


def weigh(values: np.ndarray, top: np.ndarray, min_p: np.ndarray) -> np.ndarray:
    """Returns int64 weights of logits [R, K], 0 for tokens that min-p removes. top: largest logit [R, 1]."""
    weights = np.exp(values - top)
    return np.where(weights < min_p, 0, weights * np.float32(UNIT)).astype(np.int64)


def pick_ranked(
    ids: np.ndarray, values: np.ndarray, parameters: np.ndarray, totals: np.ndarray, u: np.ndarray, complete: bool
) -> np.ndarray:
    """Picks among the K tokens with the largest logits.

    ids, values: [R, K] tokens and their logits after temperature, in descending order of logits. parameters: [R, 3]
    top_k, top_p, min_p. totals: [R] sum of all tokens' weights, for rows without top_k. u: [R, D]. complete: these are
    all tokens. Returns the columns [R] of the picks, -1 if the K tokens do not contain top-k and the nucleus.
    """
    order = None
    if (values[:, 1:] == values[:, :-1]).any():
        order = np.lexsort((ids, -values))
        ids = np.take_along_axis(ids, order, -1)
    top_k, top_p, min_p = (parameters[:, i : i + 1] for i in range(3))
    weights = weigh(values, values[:, :1], min_p)
    weights[(top_k > 0) & (np.arange(ids.shape[1]) >= top_k)] = 0
    sums = weights.cumsum(-1)
    mass = np.where(top_p >= 1, np.inf, top_p.astype(np.float64) * np.where(top_k > 0, sums[:, -1:], totals[:, None]))
    counts = ((sums - weights < mass) & (weights > 0)).sum(-1)
    picked = np.full(len(ids), -1)
    bits = (u * 2**UNIFORM_BITS).astype(np.int64)
    for row, count in enumerate(counts.tolist()):
        # Other tokens can be equal to the last one.
        if count > 0 and (complete or values[row, count - 1] > values[row, -1]):
            by_id = ids[row, :count].argsort()
            kept = ids[row, by_id].tolist()
            chosen = walk(kept, weights[row, by_id].tolist(), bits[row].tolist())
            picked[row] = by_id[chosen] if order is None else order[row, by_id[chosen]]
    return picked


def walk(ids: list[int], weights: list[int], bits: list[int]) -> int:
    """Returns the index of the token at which a walk down the tree over the token ids ends (`pickTreeSparse` in
    engine/src/sampling/candidates.ts).

    ids: tokens in ascending order. weights: their positive weights; other tokens have the weight 0. bits: uniforms,
    times 2^24.
    """
    sums = [0]
    for weight in weights:
        sums.append(sums[-1] + weight)
    first, end, start, half = 0, len(ids), 0, 1 << len(bits)
    for u in bits:
        half >>= 1
        middle = bisect_left(ids, start + half, first, end)
        left, total = sums[middle] - sums[first], sums[end] - sums[first]
        if middle < end and u * total >= left << UNIFORM_BITS:
            first, start = middle, start + half
        else:
            end = middle
        if end - first == 1:
            break
    return first

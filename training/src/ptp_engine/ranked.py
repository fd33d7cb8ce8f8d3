"""Picks among the most probable tokens on the host. These tokens are so few that Python is faster than kernels on a
device, and, for the rows of a step, faster than NumPy.
"""

from bisect import bisect_left
from itertools import accumulate, repeat

import numpy as np

UNIT = 2.0**40
"""Weight of the most probable token. Weights are integers, and the sum of 2^20 of them fits into 60 bits."""
UNIFORM_BITS = 24

Parameters = tuple[float, int, float, float]
"""Temperature (0 for greedy decoding), top_k (0 for no limit), top_p (1 for no limit) and min_p (0 for no limit)."""


def pick_ranked(
    ids: np.ndarray,
    values: np.ndarray,
    parameters: list[Parameters],
    totals: np.ndarray | None,
    u: np.ndarray,
    complete: bool,
) -> list[int]:
    """Picks among the K tokens with the largest logits.

    ids, values: [R, K] tokens by rank, and their logits after temperature. parameters: those of each row. totals: [R]
    sum of all tokens' weights, or None if all rows have top_k. u: [R, D]. complete: true if the K tokens are the whole
    vocabulary. Returns the column of each pick, or -1 if the K tokens do not contain the whole top-k and nucleus.
    """
    weights = np.exp(values - values[:, :1])
    if any(min_p > 0 for _, _, _, min_p in parameters):
        weights[weights < np.array([[min_p] for _, _, _, min_p in parameters], np.float32)] = 0
    weights = (weights * np.float32(UNIT)).astype(np.int64)
    bits = (u * 2**UNIFORM_BITS).astype(np.int64)
    sums = repeat(0) if totals is None else totals.tolist()
    columns = (column.tolist() for column in (ids, values, weights, bits))
    return [pick_row(*row, complete) for row in zip(*columns, parameters, sums, strict=False)]


def pick_row(
    ids: list[int],
    values: list[float],
    weights: list[int],
    bits: list[int],
    parameters: Parameters,
    total: int,
    complete: bool,
) -> int:
    """Returns the column of one row's pick, or -1."""
    _, top_k, top_p, _ = parameters
    sums = list(accumulate(weights))
    end = min(top_k or len(ids), len(ids), bisect_left(sums, sums[-1]) + 1)
    if top_p < 1:  # The weights before a kept token sum to less than this mass.
        end = min(end, bisect_left(sums, top_p * (sums[min(top_k, len(ids)) - 1] if top_k else total)) + 1)
    if not complete:
        known = top_k <= len(ids) or top_p >= 1  # The mass of a larger top-k is not known yet.
        if not known or values[end - 1] == values[-1]:  # Other tokens can be equal to the last one.
            return -1
    kept = list(range(end))
    if end < len(ids) and values[end] == values[end - 1]:  # Of equal tokens, the ones with the lowest ids are kept.
        tied = [column for column, value in enumerate(values) if value == values[end]]
        kept[tied[0] :] = sorted(tied, key=ids.__getitem__)[: end - tied[0]]
    kept.sort(key=ids.__getitem__)
    return kept[walk([ids[i] for i in kept], list(accumulate([weights[i] for i in kept])), bits)]


def walk(ids: list[int], sums: list[int], bits: list[int]) -> int:
    """Returns the index of the token at which a walk down the tree over the token ids ends (`pickTreeSparse` in
    engine/src/sampling/candidates.ts).

    ids: tokens in ascending order. sums: sums of their positive weights, each including the token's own; other
    tokens have the weight 0. bits: uniforms, times 2^24.
    """
    first, end, before, start, half = 0, len(ids), 0, 0, 1 << len(bits)
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

"""Picks tokens from logits on the device: adjustments, temperature, min-p, top-k, top-p, then the tree of uniforms.

The rules are the same as in engine/src/sampling and ptp_train/export/graphs/sampler.py. No row's result depends on
other rows: the number of ranked tokens (`ranked_by`) and the path follow from the row's own parameters and logits.
"""

from dataclasses import dataclass, field

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .adjust import Adjustment, adjusted

NEAREST = 64
"""Number of tokens that are ranked first. They contain top-k up to this number, and nearly every nucleus."""
LOW = 2**32 - 1


@dataclass
class Plan:
    """Sampling parameters of R rows, on the host."""

    temperature: np.ndarray
    """[R] float32. 0 for greedy rows, and for rows that need no pick."""
    top_k: np.ndarray
    """[R] int64, 0 for no limit."""
    top_p: np.ndarray
    """[R] float32, 1 for no limit."""
    min_p: np.ndarray
    """[R] float32, 0 for no limit."""
    u: np.ndarray
    """[R, D] float32 uniforms."""
    adjustments: list[Adjustment] = field(default_factory=list)
    top_count: int = 0
    """Number of alternatives to return for every row."""


@dataclass
class Picks:
    """Result for R rows, on the host."""

    tokens: np.ndarray
    log_probabilities: np.ndarray
    top_ids: np.ndarray
    """[R, top_count]"""
    top_log_probabilities: np.ndarray
    valid: np.ndarray
    """False for rows without a finite logit, or with a NaN."""


class Draw:
    """Picks for the rows of a pass. The device may still be computing them until `result` is called."""

    def __init__(self, logits: Tensor, plan: Plan):
        self.plan = plan
        self.raw = logits.to(torch.float32, copy=True)  # The next pass may overwrite the logits.
        self.log_probabilities = self.raw.log_softmax(-1)
        self.logits = adjusted(self.raw, plan.adjustments)
        self.best = self.logits.argmax(-1, keepdim=True)
        self.valid = self.logits.gather(-1, self.best).isfinite()
        self.packed = self._draw(far=False)

    def _draw(self, far: bool) -> Tensor:
        """Returns int32 [R, 4 + 2 top_count]: token, log-probability, flags, and the alternatives."""
        plan, token, closed = self.plan, self.best, torch.ones_like(self.valid)
        if plan.temperature.any():
            row = Parameters(plan, self.raw.device)
            weights, closed = shape(self.logits, row, plan, far)
            token = torch.where(row.greedy, self.best, walk(weights, row.u))
        chosen = self.log_probabilities.gather(-1, token)
        columns = [token.int(), chosen.view(torch.int32), closed.int(), self.valid.int()]
        if plan.top_count:
            ids = sortable(self.raw).topk(plan.top_count).indices
            columns += [ids.int(), self.log_probabilities.gather(-1, ids).view(torch.int32)]
        return torch.cat(columns, -1)

    def result(self) -> Picks:
        """Waits for the device. Ranks the whole vocabulary for nuclei that the nearest tokens do not contain."""
        packed = self.packed.cpu().numpy()
        if not packed[:, 2].all():
            packed = np.where(packed[:, 2:3] == 1, packed, self._draw(far=True).cpu().numpy())
        count = self.plan.top_count
        values = np.ascontiguousarray(packed).view(np.float32)
        return Picks(
            tokens=packed[:, 0],
            log_probabilities=values[:, 1],
            top_ids=packed[:, 4 : 4 + count],
            top_log_probabilities=values[:, 4 + count :],
            valid=packed[:, 3] == 1,
        )


class Parameters:
    """Sampling parameters as columns [R, 1] on the device, uploaded in one copy."""

    def __init__(self, plan: Plan, device: torch.device):
        columns = [x.astype(np.float32)[:, None] for x in (plan.temperature, plan.top_k, plan.top_p, plan.min_p)]
        table = torch.from_numpy(np.concatenate([*columns, plan.u], 1)).to(device, non_blocking=True)
        self.temperature, self.top_k, self.top_p, self.min_p = (table[:, i : i + 1] for i in range(4))
        self.u = table[:, 4:]
        self.greedy = self.temperature == 0


def ranked_by(plan: Plan, vocabulary: int, far: bool) -> np.ndarray:
    """Returns the number of tokens to rank by row, 0 for rows without top-k and top-p. It depends only on the row's
    parameters: sums of other lengths could round differently.
    """
    limited = (plan.temperature > 0) & ((plan.top_k > 0) | (plan.top_p < 1))
    near = NEAREST if not far else vocabulary
    by_top_k = np.where(plan.top_k > NEAREST, 2 ** np.ceil(np.log2(np.maximum(plan.top_k, 1))), NEAREST)
    return np.where(limited, np.minimum(np.where(plan.top_k > 0, by_top_k, near), vocabulary), 0).astype(np.int64)


def shape(logits: Tensor, row: Parameters, plan: Plan, far: bool) -> tuple[Tensor, Tensor]:
    """Returns weights [R, V], which need not sum to 1, after temperature, min-p, top-k and top-p.

    Also returns for each row whether the ranked tokens contain its nucleus [R, 1]. The weights of other rows are wrong.
    """
    scaled = logits / torch.where(row.greedy, 1.0, row.temperature)
    weights = (scaled - scaled.amax(-1, keepdim=True)).exp()
    if plan.min_p.any():
        weights = torch.where(weights < row.min_p, 0.0, weights)
    closed = torch.ones_like(row.greedy)
    sizes = ranked_by(plan, logits.shape[-1], far)
    if not sizes.any():
        return weights, closed
    keys = sortable(scaled)
    lowest = torch.full_like(keys[:, :1], torch.iinfo(torch.int64).min)
    for size in sorted(set(sizes.tolist()) - {0}):
        border, reached = last_kept(keys, weights, row, size)
        here = torch.from_numpy(sizes == size).to(keys.device, non_blocking=True)[:, None]
        lowest, closed = torch.where(here, border, lowest), torch.where(here, reached, closed)
    return torch.where(keys >= lowest, weights, 0.0), closed


def sortable(values: Tensor) -> Tensor:
    """Returns int64 keys [R, V] that order tokens by descending value, and tokens with equal values by ascending id."""
    bits = (values + 0.0).view(torch.int32)  # The sum turns -0 into 0.
    order = torch.where(bits < 0, bits ^ 0x7FFFFFFF, bits).long()
    return order * 2**32 + (LOW - torch.arange(values.shape[-1], device=values.device))


def last_kept(keys: Tensor, weights: Tensor, row: Parameters, size: int) -> tuple[Tensor, Tensor]:
    """Ranks `size` tokens. Returns the key of the last token inside top-k and top-p, and whether they contain it."""
    best = keys.topk(size)
    limit = torch.where(row.top_k > 0, row.top_k, float(size))
    inside = torch.arange(size, device=keys.device) < limit
    ranked = torch.where(inside, weights.gather(-1, best.indices), 0.0)
    sums = ranked.cumsum(-1)
    total = torch.where(row.top_k > 0, sums[:, -1:], weights.sum(-1, keepdim=True))
    # Infinity, so that rounding cuts nothing if top_p is 1.
    mass = torch.where(row.top_p >= 1, torch.inf, row.top_p * total)
    above = F.pad(sums[:, :-1], (1, 0))
    kept = ((above < mass) & (ranked > 0)).sum(-1, keepdim=True)
    reached = (row.top_k > 0) | (sums[:, -1:] >= mass) | (size == keys.shape[-1])
    return best.values.gather(-1, (kept - 1).clamp(min=0)), reached


def walk(weights: Tensor, u: Tensor) -> Tensor:
    """Returns the tokens [R, 1] at which walks down the tree over the token ids end (`pickTree` in
    engine/src/testing/reference-sampler.ts).

    The sum of a node is the rounded sum of its children. The children of node n are 2n and 2n + 1, and the root is 1.
    """
    rows, vocabulary = weights.shape
    depth = u.shape[-1]
    leaves = 2**depth
    sums = weights.new_zeros(rows, 2 * leaves)
    sums[:, leaves : leaves + vocabulary] = weights
    size = leaves
    while size > 1:
        children = sums[:, size : 2 * size]
        size //= 2
        torch.add(children[:, ::2], children[:, 1::2], out=sums[:, size : 2 * size])
    node = torch.ones_like(sums[:, :1], dtype=torch.int64)
    for d in range(depth):
        total = sums.gather(-1, node)
        node = node * 2
        left = sums.gather(-1, node)
        # The second condition is necessary if the sums are subnormal.
        node += (u[:, d : d + 1] * total >= left) & (total > left)
    return node - leaves

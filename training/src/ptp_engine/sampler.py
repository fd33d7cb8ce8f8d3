"""Picks tokens from logits on the device: adjustments, temperature, min-p, top-k, top-p, then the tree of uniforms.

The rules are the same as in engine/src/sampling and ptp_train/export/graphs/sampler.py. Weights are integers (UNIT for
the most probable token), so that no row's result depends on other rows.
"""

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from .adjust import Adjustment, adjusted
from .tree import pick_dense, pick_sparse

NEAREST = (64, 1024)
"""Numbers of tokens to rank, one after the other, until they contain top-k and the nucleus."""
UNIT = 2.0**40
"""Weight of the most probable token. The sum of a vocabulary of 2^20 tokens fits into 60 bits."""


@dataclass
class Plan:
    """Sampling parameters of R rows, on the host."""

    temperature: np.ndarray
    """[R] float32, 0 for greedy decoding."""
    top_k: np.ndarray
    """[R] float32, 0 for no limit."""
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
    """False for rows whose largest logit is not finite."""


class Rows:
    """Logits and sampling parameters of some rows. Columns are [R, 1]."""

    def __init__(self, logits: Tensor, table: Tensor, needs_total: bool):
        """needs_total: a row has top-p without top-k."""
        self.temperature, self.top_k, self.top_p, self.min_p = (table[:, i : i + 1] for i in range(4))
        self.u = table[:, 4:]
        self.scaled = logits / self.temperature
        self.top = self.scaled.amax(-1, keepdim=True)
        self.total = self.weights().long().sum(-1, keepdim=True) if needs_total else 0

    def weights(self, scaled: Tensor | None = None) -> Tensor:
        """Returns the weights of tokens [R, N] as float32 integers, 0 for tokens that min-p removes. Default: all."""
        weights = ((self.scaled if scaled is None else scaled) - self.top).exp()
        return torch.where(weights < self.min_p, 0.0, weights).mul_(UNIT)


class Draw:
    """Picks for the rows of a pass. The device may still be computing them until `result` is called."""

    def __init__(self, logits: Tensor, plan: Plan):
        """logits: [R, V]"""
        self.plan = plan
        # The tree needs float64, which MPS does not have.
        raw = (logits.cpu() if logits.device.type == "mps" else logits).float()
        self.log_probabilities = raw.log_softmax(-1)
        self.logits = adjusted(raw, plan.adjustments)
        token = self.logits.argmax(-1, keepdim=True)
        valid = self.logits.gather(-1, token).isfinite()
        closed = torch.ones_like(valid)
        random = plan.temperature > 0
        limited = random & ((plan.top_k > 0) | (plan.top_p < 1))
        table = np.stack([plan.temperature, plan.top_k, plan.top_p, plan.min_p], 1)
        self.table = self._upload(np.concatenate([table, plan.u], 1))
        for group, pick in ((limited, pick_near), (random & ~limited, pick_all)):
            if group.any():
                where = self._where(group)
                token[where], closed[where] = pick(self._rows(group, where))
        columns = [token.int(), self._score(token), valid.int(), closed.int()]
        if plan.top_count:
            ids = sortable(raw, all_ids(raw)).topk(plan.top_count).indices
            columns += [ids.int(), self._score(ids)]
        self.packed = torch.cat(columns, -1)

    def result(self) -> Picks:
        """Waits for the device. Ranks more tokens for rows whose nucleus is large."""
        packed = self.packed.cpu().numpy()
        for pick in (pick_farther, pick_anywhere):
            still_open = packed[:, 3] == 0
            if still_open.any():
                where = self._where(still_open)
                token, closed = pick(self._rows(still_open, where))
                columns = torch.cat([token.int(), self._score(token, where), closed.int()], -1).cpu().numpy()
                packed[still_open, 0], packed[still_open, 1], packed[still_open, 3] = columns.T
        count = self.plan.top_count
        values = packed.view(np.float32)
        return Picks(
            tokens=packed[:, 0],
            log_probabilities=values[:, 1],
            top_ids=packed[:, 4 : 4 + count],
            top_log_probabilities=values[:, 4 + count :],
            valid=packed[:, 2] == 1,
        )

    def _rows(self, group: np.ndarray, where: Tensor | slice) -> Rows:
        without_top_k = (self.plan.top_k == 0) & (self.plan.top_p < 1)
        return Rows(self.logits[where], self.table[where], needs_total=bool(without_top_k[group].any()))

    def _where(self, group: np.ndarray) -> Tensor | slice:
        return slice(None) if group.all() else self._upload(np.flatnonzero(group))

    def _score(self, tokens: Tensor, where: Tensor | slice = slice(None)) -> Tensor:
        """Returns the bits of the tokens' log-probabilities as int32."""
        return self.log_probabilities[where].gather(-1, tokens).view(torch.int32)

    def _upload(self, values: np.ndarray) -> Tensor:
        return torch.from_numpy(values).to(self.logits.device, non_blocking=True)


def sortable(values: Tensor, ids: Tensor) -> Tensor:
    """Returns int64 keys that order tokens by descending value, and tokens with equal values by ascending id."""
    bits = (values + 0.0).view(torch.int32)  # The sum turns -0 into 0.
    order = torch.where(bits < 0, bits ^ 0x7FFFFFFF, bits).long()
    return order * 2**32 - ids


def all_ids(values: Tensor) -> Tensor:
    return torch.arange(values.shape[-1], device=values.device)


def pick_all(rows: Rows) -> tuple[Tensor, Tensor]:
    """Picks among all tokens. Returns tokens [R, 1] and True."""
    return pick_dense(rows.weights(), rows.u), torch.ones_like(rows.top, dtype=torch.bool)


def pick_near(rows: Rows) -> tuple[Tensor, Tensor]:
    return pick_ranked(rows, NEAREST[0])


def pick_farther(rows: Rows) -> tuple[Tensor, Tensor]:
    return pick_ranked(rows, NEAREST[1])


def pick_ranked(rows: Rows, size: int) -> tuple[Tensor, Tensor]:
    """Picks among the `size` most probable tokens. Returns tokens [R, 1], and whether these contain top-k and the
    nucleus [R, 1]. The tokens of other rows are wrong.
    """
    vocabulary = rows.scaled.shape[-1]
    size = min(size, vocabulary)
    values, ids = rows.scaled.topk(size)
    order = sortable(values, ids).argsort(-1, descending=True)
    values, ids = values.gather(-1, order), ids.gather(-1, order)
    weights = rows.weights(values).long()
    kept = inside(weights, rows)
    last = values.gather(-1, (kept.sum(-1, keepdim=True) - 1).clamp(min=0))
    # Other tokens can be equal to the last one of `values`.
    closed = (last > values[:, -1:]) | (size == vocabulary)
    ids, order = ids.sort(-1)
    return pick_sparse(ids, torch.where(kept, weights, 0).gather(-1, order), rows.u), closed


def pick_anywhere(rows: Rows) -> tuple[Tensor, Tensor]:
    """Ranks the whole vocabulary. Returns tokens [R, 1] and True."""
    keys = sortable(rows.scaled, all_ids(rows.scaled))
    ranked = keys.sort(-1, descending=True)
    weights = rows.weights()
    kept = inside(weights.gather(-1, ranked.indices).long(), rows)
    border = ranked.values.gather(-1, (kept.sum(-1, keepdim=True) - 1).clamp(min=0))
    return pick_dense(torch.where(keys >= border, weights, 0.0), rows.u), torch.ones_like(kept[:, :1])


def inside(weights: Tensor, rows: Rows) -> Tensor:
    """Returns which of the ranked tokens [R, N] are inside top-k and top-p: those before which the weights sum to less
    than top_p of the top-k mass.
    """
    rank = torch.arange(weights.shape[-1], device=weights.device)
    weights = torch.where((rank < rows.top_k) | (rows.top_k == 0), weights, 0)
    sums = weights.cumsum(-1)
    total = torch.where(rows.top_k > 0, sums[:, -1:], rows.total)
    # Infinity, so that rounding cuts nothing if top_p is 1.
    mass = torch.where(rows.top_p >= 1, torch.inf, rows.top_p.double() * total)
    return (sums - weights < mass) & (weights > 0)

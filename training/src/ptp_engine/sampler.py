"""Picks tokens from logits: adjustments, temperature, min-p, top-k, top-p, then the tree of uniforms.

The rules are the same as in engine/src/sampling and ptp_train/export/graphs/sampler.py. The device does what reads the
whole vocabulary; the host picks among the most probable tokens (ranked.py). Weights are integers, whose sums have no
rounding errors, so no row's result depends on other rows.
"""

import functools
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from .adjust import Adjustment, adjusted
from .gen import common_pb2
from .ranked import UNIT, order_ties, pick_ranked
from .tree import pick_dense

NEAREST = (64, 1024)
"""Numbers of tokens to rank, one after the other, until they contain top-k and the nucleus."""


@dataclass
class Plan:
    """Sampling parameters of R rows, on the host."""

    parameters: np.ndarray
    """[R, 4] float32 columns of `parameters_of`."""
    u: np.ndarray
    """[R, D] float32 uniforms."""
    adjustments: list[Adjustment] = field(default_factory=list)
    top_count: int = 0
    """Number of alternatives to return for every row."""

    @property
    def random(self) -> np.ndarray:
        """[R] true for rows that are not greedy."""
        return self.parameters[:, 0] > 0

    @property
    def limited(self) -> np.ndarray:
        """[R] true for random rows with top-k or top-p."""
        return self.random & ((self.parameters[:, 1] > 0) | (self.parameters[:, 2] < 1))


def parameters_of(sampling: common_pb2.SamplingParameters) -> tuple[float, float, float, float]:
    """Returns temperature (0 for greedy decoding), top_k (0 for no limit), top_p (1 for no limit) and min_p (0 for no
    limit).
    """
    return sampling.temperature, float(sampling.top_k), sampling.top_p or 1.0, sampling.min_p


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
    """Logits and sampling parameters of some rows, on the device. Columns are [R, 1]."""

    def __init__(self, logits: Tensor, table: Tensor):
        self.temperature, self.top_k, self.top_p, self.min_p, self.u = table.split([1, 1, 1, 1, table.shape[1] - 4], 1)
        self.scaled = logits / self.temperature

    def weights(self) -> Tensor:
        """Returns the weights of all tokens [R, V] as float32 integers, 0 for tokens that min-p removes."""
        weights = (self.scaled - self.scaled.amax(-1, keepdim=True)).exp()
        return torch.where(weights < self.min_p, 0.0, weights).mul_(UNIT)


class Draw:
    """Picks for the rows of a pass. The device may still be computing until `result` is called."""

    def __init__(self, logits: Tensor, plan: Plan):
        """logits: [R, V]"""
        self.plan = plan
        # The tree needs float64, which MPS does not have.
        raw = (logits.cpu() if logits.device.type == "mps" else logits).float()
        self.log_probabilities = raw.log_softmax(-1)
        self.logits = adjusted(raw, plan.adjustments)
        token = self.logits.argmax(-1, keepdim=True)
        largest = self.logits.gather(-1, token)
        self.limited = plan.limited
        unlimited = plan.random & ~self.limited
        if unlimited.any():
            where = self._where(unlimited)
            rows = self._rows(where)
            token[where] = pick_dense(rows.weights(), rows.u)
        columns = [token.int(), self._score(token), largest.view(torch.int32)]
        if plan.top_count:
            ids = sortable(raw).topk(plan.top_count).indices
            columns += [ids.int(), self._score(ids)]
        self.packed = torch.cat(columns, -1)
        self.ranked = self._rank(self.limited, NEAREST[0]) if self.limited.any() else None

    def result(self) -> Picks:
        """Waits for the device. Ranks more tokens for rows whose nucleus is large."""
        packed = self.packed.cpu().numpy()
        values = packed.view(np.float32)
        valid = np.isfinite(values[:, 2])
        still_open, ranked = self.limited, self.ranked
        for size in NEAREST:
            if not still_open.any():
                break
            ranked = self._rank(still_open, size) if ranked is None else ranked
            still_open, ranked = self._pick(packed, still_open, size, ranked) & valid, None
        if still_open.any():
            where = self._where(still_open)
            token = pick_anywhere(self._rows(where))
            packed[still_open, :2] = torch.cat([token.int(), self._score(token, where)], -1).cpu().numpy()
        count = self.plan.top_count
        return Picks(
            tokens=packed[:, 0],
            log_probabilities=values[:, 1],
            top_ids=packed[:, 3 : 3 + count],
            top_log_probabilities=values[:, 3 + count :],
            valid=valid,
        )

    def _rank(self, group: np.ndarray, size: int) -> tuple[Tensor, Tensor | None]:
        """Returns int32 [3, G, K] for the rows of a group: ids, logits after temperature, and log-probabilities of the
        K most probable tokens. Also returns the sums of weights [G], if a row needs its sum.
        """
        where = self._where(group)
        rows = self._rows(where)
        values, ids = rows.scaled.topk(min(size, rows.scaled.shape[-1]))
        packed = torch.stack([ids.int(), values.view(torch.int32), self._score(ids, where)])
        needs_total = (self.plan.parameters[group, 1] == 0).any()
        return packed, rows.weights().long().sum(-1) if needs_total else None

    def _pick(
        self, packed: np.ndarray, group: np.ndarray, size: int, ranked: tuple[Tensor, Tensor | None]
    ) -> np.ndarray:
        """Picks among ranked tokens for the rows of a group. Returns the rows that need more tokens."""
        plan = self.plan
        ids, values, scores = ranked[0].cpu().numpy()
        ids, values, scores = order_ties(ids, values.view(np.float32), scores)
        totals = np.zeros(len(ids), np.int64) if ranked[1] is None else ranked[1].cpu().numpy()
        complete = ids.shape[1] == self.logits.shape[1]
        column = pick_ranked(ids, values, plan.parameters[group, 1:], totals, plan.u[group], complete)
        found = column >= 0
        rows = np.flatnonzero(group)[found]
        packed[rows, 0] = ids[found, column[found]]
        packed[rows, 1] = scores[found, column[found]]
        still_open = group.copy()
        still_open[rows] = False
        return still_open

    @functools.cached_property
    def _table(self) -> Tensor:
        return self._upload(np.concatenate([self.plan.parameters, self.plan.u], 1))

    def _rows(self, where: Tensor | slice) -> Rows:
        return Rows(self.logits[where], self._table[where])

    def _where(self, group: np.ndarray) -> Tensor | slice:
        return slice(None) if group.all() else self._upload(np.flatnonzero(group))

    def _score(self, tokens: Tensor, where: Tensor | slice = slice(None)) -> Tensor:
        """Returns the bits of the tokens' log-probabilities as int32."""
        return self.log_probabilities[where].gather(-1, tokens).view(torch.int32)

    def _upload(self, values: np.ndarray) -> Tensor:
        return torch.from_numpy(values).to(self.logits.device, non_blocking=True)


def sortable(values: Tensor) -> Tensor:
    """Returns int64 keys [R, V] that order tokens by descending value, and tokens with equal values by ascending id."""
    bits = (values + 0.0).view(torch.int32)  # The sum turns -0 into 0.
    order = torch.where(bits < 0, bits ^ 0x7FFFFFFF, bits).long()
    return order * 2**32 - torch.arange(values.shape[-1], device=values.device)


def pick_anywhere(rows: Rows) -> Tensor:
    """Ranks the whole vocabulary. Returns tokens [R, 1]."""
    keys = sortable(rows.scaled)
    ranked = keys.sort(-1, descending=True)
    weights = rows.weights()
    kept = inside(weights.gather(-1, ranked.indices).long(), rows)
    border = ranked.values.gather(-1, kept.sum(-1, keepdim=True) - 1)
    return pick_dense(torch.where(keys >= border, weights, 0.0), rows.u)


def inside(weights: Tensor, rows: Rows) -> Tensor:
    """Returns a mask [R, V] of the ranked tokens inside top-k and top-p. The weights before such a token sum to less
    than top_p of the top-k mass.
    """
    rank = torch.arange(weights.shape[-1], device=weights.device)
    weights = torch.where((rank < rows.top_k) | (rows.top_k == 0), weights, 0)
    sums = weights.cumsum(-1)
    # Infinity, so that rounding cuts nothing if top_p is 1.
    mass = torch.where(rows.top_p >= 1, torch.inf, rows.top_p.double() * sums[:, -1:])
    return (sums - weights < mass) & (weights > 0)

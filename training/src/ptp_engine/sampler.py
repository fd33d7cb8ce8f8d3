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
from .ranked import UNIT, Parameters, pick_ranked
from .tree import pick_dense

NEAREST = (64, 1024)
"""Numbers of tokens to rank, one after the other, until they contain top-k and the nucleus."""


@dataclass
class Plan:
    """Sampling parameters of R rows, on the host."""

    parameters: list[Parameters]
    u: np.ndarray
    """[R, D] float32 uniforms."""
    adjustments: list[Adjustment] = field(default_factory=list)
    top_count: int = 0
    """Number of alternatives to return for every row."""

    def random_rows(self) -> tuple[list[int], list[int]]:
        """Returns the rows that are not greedy: those with top-k or top-p, and those with neither."""
        random = [(row, top_k > 0 or top_p < 1) for row, (t, top_k, top_p, _) in enumerate(self.parameters) if t > 0]
        return [row for row, limited in random if limited], [row for row, limited in random if not limited]


def parameters_of(sampling: common_pb2.SamplingParameters) -> Parameters:
    return sampling.temperature, sampling.top_k, sampling.top_p or 1.0, sampling.min_p


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
    """Logits of R rows with their sampling parameters and uniforms, on the device."""

    def __init__(self, logits: Tensor, table: Tensor):
        """logits: [R, V]. table: [R, 4 + D], the columns of `parameters_of` and the uniforms."""
        self.table = table
        self.scaled = logits / table[:, :1]

    @property
    def u(self) -> Tensor:
        return self.table[:, 4:]

    def weights(self) -> Tensor:
        """Returns the weights of all tokens [R, V] as float32 integers, 0 for tokens that min-p removes."""
        weights = (self.scaled - self.scaled.amax(-1, keepdim=True)).exp()
        return torch.where(weights < self.table[:, 3:4], 0.0, weights).mul_(UNIT)


class Draw:
    """Picks for the rows of a pass. The device may still be computing until `result` is called."""

    def __init__(self, logits: Tensor, plan: Plan):
        """logits: [R, V]"""
        self.plan = plan
        # The tree needs float64, which MPS does not have.
        raw = (logits.cpu() if logits.device.type == "mps" else logits).float()
        self.log_probabilities = raw.log_softmax(-1)
        self.logits = adjusted(raw, plan.adjustments)
        self.limited, unlimited = plan.random_rows()
        self.ranked = self._rank(self.limited, NEAREST[0]) if self.limited else None
        self.packed = None
        if len(self.limited) < len(raw) or plan.top_count:
            self.packed = self._pack(raw, unlimited)

    def _pack(self, raw: Tensor, unlimited: list[int]) -> Tensor:
        """Returns int32 [R, 3 + 2 top_count]: picks, their log-probabilities and the largest logits, which `result`
        replaces in limited rows, then the alternatives.
        """
        token = self.logits.argmax(-1, keepdim=True)
        largest = self.logits.gather(-1, token)
        if unlimited:
            where = self._where(unlimited)
            rows = self._rows(where)
            token[slice(None) if where is None else where] = pick_dense(rows.weights(), rows.u)
        columns = [token.int(), self._score(token), largest.view(torch.int32)]
        if self.plan.top_count:
            ids = sortable(raw).topk(self.plan.top_count).indices
            columns += [ids.int(), self._score(ids)]
        return torch.cat(columns, -1)

    def result(self) -> Picks:
        """Waits for the device. Ranks more tokens for rows whose nucleus is large."""
        packed = np.empty((len(self.logits), 3), np.int32) if self.packed is None else self.packed.cpu().numpy()
        still_open, ranked = self.limited, self.ranked
        for size in NEAREST:
            if not still_open:
                break
            still_open, ranked = self._pick(packed, still_open, ranked or self._rank(still_open, size)), None
        if still_open:
            where = self._where(still_open)
            token = pick_anywhere(self._rows(where))
            packed[still_open, :2] = torch.cat([token.int(), self._score(token, where)], -1).cpu().numpy()
        values = packed.view(np.float32)
        count = self.plan.top_count
        return Picks(
            tokens=packed[:, 0],
            log_probabilities=values[:, 1],
            top_ids=packed[:, 3 : 3 + count],
            top_log_probabilities=values[:, 3 + count :],
            valid=np.isfinite(values[:, 2]),
        )

    def _rank(self, group: list[int], size: int) -> tuple[Tensor, Tensor | None]:
        """Returns int32 [3, G, K] for G rows: ids, log-probabilities, and logits after temperature of the K most
        probable tokens. Also returns the sums of weights [G], if a row needs its sum.
        """
        where = self._where(group)
        rows = self._rows(where)
        values, ids = rows.scaled.topk(min(size, rows.scaled.shape[-1]))
        packed = torch.stack([ids.int(), self._score(ids, where), values.view(torch.int32)])
        needs_total = any(self.plan.parameters[row][1] == 0 for row in group)
        return packed, rows.weights().long().sum(-1) if needs_total else None

    def _pick(self, packed: np.ndarray, group: list[int], ranked: tuple[Tensor, Tensor | None]) -> list[int]:
        """Picks among ranked tokens for the rows of a group. Returns the rows that need more tokens."""
        best = ranked[0].cpu().numpy()
        ids, values = best[0], best[2].view(np.float32)
        totals = None if ranked[1] is None else ranked[1].cpu().numpy()
        parameters = [self.plan.parameters[row] for row in group]
        complete = ids.shape[1] == self.logits.shape[1]
        columns = pick_ranked(ids, values, parameters, totals, self.plan.u[group], complete)
        packed[group, :2] = best[:2, np.arange(len(group)), columns].T
        packed[group, 2] = best[2, :, 0]
        finite = np.isfinite(values[:, 0]).tolist()
        return [row for row, column, known in zip(group, columns, finite, strict=True) if column < 0 and known]

    @functools.cached_property
    def _table(self) -> Tensor:
        return self._upload(np.concatenate([np.array(self.plan.parameters, np.float32), self.plan.u], 1))

    def _where(self, group: list[int]) -> Tensor | None:
        """Returns the rows of a group on the device, or None for all rows."""
        return None if len(group) == len(self.logits) else self._upload(np.array(group))

    def _rows(self, where: Tensor | None) -> Rows:
        return Rows(self.logits, self._table) if where is None else Rows(self.logits[where], self._table[where])

    def _score(self, tokens: Tensor, where: Tensor | None = None) -> Tensor:
        """Returns the bits of the tokens' log-probabilities as int32."""
        log_probabilities = self.log_probabilities if where is None else self.log_probabilities[where]
        return log_probabilities.gather(-1, tokens).view(torch.int32)

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
    top_k, top_p = rows.table[:, 1:2], rows.table[:, 2:3]
    weights = torch.where((rank < top_k) | (top_k == 0), weights, 0)
    sums = weights.cumsum(-1)
    # Infinity, so that rounding cuts nothing if top_p is 1.
    mass = torch.where(top_p >= 1, torch.inf, top_p.double() * sums[:, -1:])
    return (sums - weights < mass) & (weights > 0)

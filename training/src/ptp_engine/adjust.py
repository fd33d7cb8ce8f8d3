"""Adjusts the logits of single tokens: scale, biases, mask."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .gen import engine_pb2


@dataclass
class Adjustment:
    """Adjustment of one row."""

    row: int
    change: engine_pb2.LogitAdjustment


def adjusted(logits: Tensor, adjustments: list[Adjustment]) -> Tensor:
    """Returns logits [R, V] (float32) after the adjustments. Returns `logits` itself if there are none."""
    if not adjustments:
        return logits
    logits = logits.clone()
    scaled = [a for a in adjustments if a.change.scaled]
    if scaled:
        at = _index(logits, [(a.row, a.change.scaled) for a in scaled])
        scale = _upload(logits, [np.full(len(a.change.scaled), a.change.scale, np.float32) for a in scaled])
        value = logits[at]
        logits[at] = torch.where(value > 0, value / scale, value * scale)
    biased = [a for a in adjustments if a.change.biased]
    if biased:
        at = _index(logits, [(a.row, a.change.biased) for a in biased])
        logits[at] += _upload(logits, [np.array(a.change.biases, np.float32) for a in biased])
    masked = [a for a in adjustments if a.change.allowed]
    if masked:
        bits = np.stack([np.frombuffer(a.change.allowed, np.uint8) for a in masked])
        masks = torch.from_numpy(bits).to(logits.device, non_blocking=True)
        bit = torch.arange(8, device=logits.device, dtype=torch.uint8)
        allowed = ((masks[..., None] >> bit) & 1).flatten(1)[:, : logits.shape[-1]].bool()
        rows = torch.tensor([a.row for a in masked], device=logits.device)
        logits[rows] = logits[rows].masked_fill(~allowed, -torch.inf)
    return logits


def _index(logits: Tensor, tokens: list) -> tuple[Tensor, Tensor]:
    """Returns row and column indices of the tokens of several rows."""
    rows = _upload(logits, [np.full(len(ids), row, np.int64) for row, ids in tokens])
    return rows, _upload(logits, [np.array(ids, np.int64) for _, ids in tokens])


def _upload(logits: Tensor, parts: list[np.ndarray]) -> Tensor:
    return torch.from_numpy(np.concatenate(parts)).to(logits.device, non_blocking=True)

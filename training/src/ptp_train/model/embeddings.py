"""Fixed features of a uniform u in [0, 1); a learned linear map takes them to the width of the model."""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor


class Embedding(NamedTuple):
    features: Callable[[Tensor, int], Tensor]
    """u [...] and the number of harmonics -> [..., F]."""
    count: Callable[[int], int]
    """F for a number of harmonics."""
    hidden: int = 0
    """Width of a hidden layer before the linear map, 0 for none."""


def fourier(u: Tensor, harmonics: int) -> Tensor:
    """2u - 1, cos(pi k u), sin(pi k u) for k = 1 .. harmonics."""
    angle = u[..., None] * torch.arange(1, harmonics + 1, device=u.device) * math.pi
    return torch.cat([u[..., None] * 2 - 1, angle.cos(), angle.sin()], -1)


EMBEDDINGS = {"fourier": Embedding(fourier, lambda harmonics: 1 + 2 * harmonics)}
"""By name. research/embeddings.py adds the paper's and others, which were no better."""


def features(kind: str, u: Tensor, harmonics: int) -> Tensor:
    """u [..., D] -> [..., D * F]."""
    return EMBEDDINGS[kind].features(u, harmonics).flatten(-2)

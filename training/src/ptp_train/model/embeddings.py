"""How a uniform enters the network: fixed features of u in [0, 1), which a linear map takes to the width of the model.

`binary` is the paper's choice (the bits of the float32), `thermometer` and `float` its comparisons; `fourier` is ours.
Every function takes u [...] and gives [..., F].
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

LEVELS = 32
"""Features of the embeddings that have a resolution to choose, but for `fourier`, whose count is a setting."""


def binary(u: Tensor) -> Tensor:
    """The 32 bits of u as an IEEE-754 float32, highest first."""
    bits = u.float().contiguous().view(torch.int32)
    return ((bits[..., None] >> torch.arange(31, -1, -1, dtype=torch.int32, device=u.device)) & 1).float()


def thermometer(u: Tensor) -> Tensor:
    """Feature i is 1 where u exceeds i / LEVELS."""
    return (u[..., None] > torch.arange(LEVELS, device=u.device) / LEVELS).float()


def plain(u: Tensor) -> Tensor:
    """u itself, centred; two layers follow (see `drafter.UniformEmbedding`)."""
    return u[..., None] * 2 - 1


def sawtooth(u: Tensor) -> Tensor:
    """u modulo 1/k, scaled to [0, 1), for k = 1 .. LEVELS."""
    k = torch.arange(1, LEVELS + 1, device=u.device)
    return (u[..., None] * k) % 1


def cosine(u: Tensor) -> Tensor:
    """cos(pi k u) for k = 1 .. LEVELS."""
    return (u[..., None] * torch.arange(1, LEVELS + 1, device=u.device) * math.pi).cos()


def fourier(u: Tensor, harmonics: int) -> Tensor:
    """2u - 1, cos(pi k u), sin(pi k u) for k = 1 .. harmonics."""
    angle = u[..., None] * torch.arange(1, harmonics + 1, device=u.device) * math.pi
    return torch.cat([u[..., None] * 2 - 1, angle.cos(), angle.sin()], -1)


def interpolation(u: Tensor) -> Tensor:
    """Weights of a linear interpolation between LEVELS + 1 learned vectors at even distances."""
    at = torch.arange(LEVELS + 1, device=u.device)
    return (1 - (u[..., None] * LEVELS - at).abs()).clamp(min=0)


FIXED: dict[str, tuple[Callable[[Tensor], Tensor], int]] = {
    "binary": (binary, 32),
    "thermometer": (thermometer, LEVELS),
    "float": (plain, 1),
    "sawtooth": (sawtooth, LEVELS),
    "cosine": (cosine, LEVELS),
    "interpolation": (interpolation, LEVELS + 1),
}
KINDS = ("fourier", *FIXED)


def count(kind: str, harmonics: int) -> int:
    """F, features per uniform."""
    return 1 + 2 * harmonics if kind == "fourier" else FIXED[kind][1]


def features(kind: str, u: Tensor, harmonics: int) -> Tensor:
    """u [..., D] -> [..., D * F]."""
    rows = fourier(u, harmonics) if kind == "fourier" else FIXED[kind][0](u)
    return rows.flatten(-2)

"""Embeddings of uniforms that were tried. None was better than `fourier` (NOTEBOOK.md).

`binary` (the bits of the float32) is the paper's choice. The paper compares it with `thermometer` and `float`.
Importing this module adds them to `distill --embedding`. Every function maps u [...] to features [..., F].
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from ptp_train.model.embeddings import EMBEDDINGS, Embedding

LEVELS = 32
"""Number of features of the embeddings whose resolution can be chosen."""


def binary(u: Tensor) -> Tensor:
    """Returns the 32 bits of u as an IEEE-754 float32, highest first."""
    bits = u.float().contiguous().view(torch.int32)
    return ((bits[..., None] >> torch.arange(31, -1, -1, dtype=torch.int32, device=u.device)) & 1).float()


def thermometer(u: Tensor) -> Tensor:
    """Returns features. Feature i is 1 where u exceeds i / LEVELS."""
    return (u[..., None] > torch.arange(LEVELS, device=u.device) / LEVELS).float()


def plain(u: Tensor) -> Tensor:
    """Returns u itself, centred. Two layers follow (see `embeddings.UniformEmbedding`)."""
    return u[..., None] * 2 - 1


def sawtooth(u: Tensor) -> Tensor:
    """Returns u modulo 1/k, scaled to [0, 1), for k = 1 .. LEVELS."""
    k = torch.arange(1, LEVELS + 1, device=u.device)
    return (u[..., None] * k) % 1


def cosine(u: Tensor) -> Tensor:
    """Returns cos(pi k u) for k = 1 .. LEVELS."""
    return (u[..., None] * torch.arange(1, LEVELS + 1, device=u.device) * math.pi).cos()


def interpolation(u: Tensor) -> Tensor:
    """Returns the weights of a linear interpolation between LEVELS + 1 learned vectors at equal distances."""
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
for _name, (_features, _count) in FIXED.items():
    EMBEDDINGS[_name] = Embedding(
        lambda u, harmonics, f=_features: f(u), lambda harmonics, n=_count: n, 4 * LEVELS if _name == "float" else 0
    )

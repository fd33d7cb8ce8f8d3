"""Fixed features of a uniform u in [0, 1). A learned linear map projects them to the width of the model."""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .drafter_config import DrafterConfig


class Embedding(NamedTuple):
    features: Callable[[Tensor, int], Tensor]
    """Maps u [...] and a number of harmonics to features [..., F]."""
    count: Callable[[int], int]
    """Returns F for a number of harmonics."""
    hidden: int = 0
    """Width of a hidden layer before the linear map. 0 means no hidden layer."""


def fourier(u: Tensor, harmonics: int) -> Tensor:
    """Returns the features 2u - 1, cos(pi k u) and sin(pi k u) for k = 1 .. harmonics."""
    angle = u[..., None] * torch.arange(1, harmonics + 1, device=u.device) * math.pi
    return torch.cat([u[..., None] * 2 - 1, angle.cos(), angle.sin()], -1)


EMBEDDINGS = {"fourier": Embedding(fourier, lambda harmonics: 1 + 2 * harmonics)}
"""Embeddings by name. research/embeddings.py adds the paper's embedding and others, which performed no better."""


def features(kind: str, u: Tensor, harmonics: int) -> Tensor:
    """Returns the features [..., D * F] of u [..., D]."""
    return EMBEDDINGS[kind].features(u, harmonics).flatten(-2)


class UniformEmbedding(nn.Module):
    """Embeds the uniforms that a position sees, and its sampling conditions.

    Greedy positions (temperature 0) use a learned vector instead, because uniforms have no effect on them.
    """

    def __init__(self, c: DrafterConfig):
        super().__init__()
        self.c = c
        embedding = EMBEDDINGS[c.embedding]
        count = c.coordinates * embedding.count(c.frequencies)
        self.hidden = nn.Linear(count, embedding.hidden) if embedding.hidden else None
        self.uniform = nn.Linear(embedding.hidden or count, c.sizes.width)
        self.greedy = nn.Parameter(torch.zeros(c.sizes.width))
        self.condition = nn.Linear(3, c.sizes.width, bias=False)
        nn.init.zeros_(self.condition.weight)

    def of_uniforms(self, u: Tensor) -> Tensor:
        """Maps u [..., D] to [..., width]."""
        x = features(self.c.embedding, u, self.c.frequencies)
        return self.uniform(F.silu(self.hidden(x)) if self.hidden else x)

    def of_conditions(self, temperature: Tensor, top_p: Tensor, top_k: Tensor) -> Tensor:
        """Maps temperature, top_p and log_V(top_k), each [...], to [..., width]. Without a top-k limit, top_k counts as
        V.
        """
        vocab = float(self.c.target.vocab)
        limit = torch.where(top_k > 0, top_k, torch.full_like(top_k, vocab)).log() / math.log(vocab)
        return self.condition(torch.stack([temperature, top_p, limit], -1))

    def forward(self, u: Tensor, temperature: Tensor, top_p: Tensor, top_k: Tensor) -> Tensor:
        """Maps u [..., L, D] and conditions [..., L] to [..., L, width]. top_k is a float, and 0 means no limit."""
        x = self.of_conditions(temperature, top_p, top_k)
        if self.c.method == "independent":
            return x
        seen = torch.where((temperature > 0)[..., None], self.of_uniforms(u), self.greedy)
        if self.c.method == "c":  # Position k sees only the uniforms before its own.
            seen = torch.cat([torch.zeros_like(seen[..., :1, :]), seen[..., :-1, :]], -2)
        return x + seen

    @torch.no_grad()
    def rescale(self, rms: float) -> None:
        """Scales the weights so that embeddings of random uniforms have the given root mean square."""
        x = self.of_uniforms(torch.rand(4096, self.c.coordinates))
        factor = rms / x.pow(2).mean().sqrt()
        for p in self.uniform.parameters():
            p.mul_(factor)

"""What a drafter's distribution q is compared with: the target's token, or its whole distribution p (docs/ptp.md, "Training")."""

import torch
import torch.nn.functional as F
from torch import Tensor

TINY = 1e-9
"""Stands for probability 0 where a logarithm needs one."""


def cross_entropy(logits: Tensor, answers: Tensor, p: Tensor) -> Tensor:
    return F.cross_entropy(logits, answers, reduction="none")


def kl(logits: Tensor, answers: Tensor, p: Tensor) -> Tensor:
    """KL(p || q) without p's own entropy, which does not depend on the drafter."""
    return -(p * logits.log_softmax(-1)).sum(-1)


def reverse_kl(logits: Tensor, answers: Tensor, p: Tensor) -> Tensor:
    log_q = logits.log_softmax(-1)
    return (log_q.exp() * (log_q - p.clamp(min=TINY).log())).sum(-1)


def binary_cross_entropy(logits: Tensor, answers: Tensor, p: Tensor) -> Tensor:
    """Each token's probability by itself: -p log q - (1 - p) log(1 - q), summed over the vocabulary."""
    log_q = logits.log_softmax(-1)
    log_rest = torch.log1p(-log_q.exp().clamp(max=1 - 1e-6))
    return -(p * log_q + (1 - p) * log_rest).sum(-1)


LOSSES = {"ce": cross_entropy, "kl": kl, "reverse_kl": reverse_kl, "binary_ce": binary_cross_entropy}
"""Each takes logits [R, V], answers [R], p [R, V] and gives [R]."""

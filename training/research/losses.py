"""Losses that were tried and were worse than KL (NOTEBOOK.md): `distill --loss reverse_kl` and `binary_ce`."""

import torch
from torch import Tensor

from ptp_train.train.losses import LOSSES

TINY = 1e-9
"""Value that replaces probability 0 in logarithms."""


def reverse_kl(logits: Tensor, answers: Tensor, p: Tensor) -> Tensor:
    log_q = logits.log_softmax(-1)
    return (log_q.exp() * (log_q - p.clamp(min=TINY).log())).sum(-1)


def binary_cross_entropy(logits: Tensor, answers: Tensor, p: Tensor) -> Tensor:
    """Returns -p log q - (1 - p) log(1 - q), summed over the vocabulary."""
    log_q = logits.log_softmax(-1)
    log_rest = torch.log1p(-log_q.exp().clamp(max=1 - 1e-6))
    return -(p * log_q + (1 - p) * log_rest).sum(-1)


LOSSES |= {"reverse_kl": reverse_kl, "binary_ce": binary_cross_entropy}

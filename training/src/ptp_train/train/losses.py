"""Losses of a drafter's distribution q against the target's token, or against the target's whole distribution p
(docs/ptp.md, "Training").
"""

import torch.nn.functional as F
from torch import Tensor


def cross_entropy(logits: Tensor, answers: Tensor, p: Tensor) -> Tensor:
    return F.cross_entropy(logits, answers, reduction="none")


def kl(logits: Tensor, answers: Tensor, p: Tensor) -> Tensor:
    """Returns KL(p || q) without the entropy of p, which does not depend on the drafter."""
    return -(p * logits.log_softmax(-1)).sum(-1)


LOSSES = {"ce": cross_entropy, "kl": kl}
"""Losses by name. Each maps logits [R, V], answers [R] and p [R, V] to losses [R]."""

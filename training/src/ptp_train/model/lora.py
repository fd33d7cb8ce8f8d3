"""Low-rank adapters (Hu et al. 2021) on all linear maps of a layer, whose own weights stay frozen."""

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .transformer import Layer


class LoraLinear(nn.Module):
    """Computes y = (W + B A) x, where W is frozen. B starts at 0, so the layer is unchanged before training."""

    def __init__(self, linear: nn.Linear, rank: int):
        super().__init__()
        self.linear = linear.requires_grad_(False)
        self.a = nn.Parameter(torch.randn(rank, linear.in_features) * linear.in_features**-0.5)
        self.b = nn.Parameter(torch.zeros(linear.out_features, rank))

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x) + F.linear(F.linear(x, self.a), self.b)

    def merged(self) -> nn.Linear:
        """Returns the equivalent plain linear map."""
        out = copy.deepcopy(self.linear)
        out.weight.data += self.b.detach() @ self.a.detach()
        return out


def adapted(layer: Layer, rank: int) -> Layer:
    """Adds an adapter to each linear map of the layer. The layer's norms are trained too."""
    for name, child in list(layer.named_children()):
        if isinstance(child, nn.Linear):
            setattr(layer, name, LoraLinear(child, rank))
    return layer


def merged(layer: Layer) -> Layer:
    """Returns the equivalent plain layer, for export."""
    out = copy.deepcopy(layer)
    for name, child in list(out.named_children()):
        if isinstance(child, LoraLinear):
            setattr(out, name, child.merged())
    return out

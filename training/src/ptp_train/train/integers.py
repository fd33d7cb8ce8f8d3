"""The target with products in 8-bit integers, as in a drafter that is exported in int8 (export/graphs/int8.py). It is
used to measure the loss of accuracy.
"""

import copy

import torch
from torch import Tensor, nn

from ..export.graphs.int8 import quantise_channels
from ..model.transformer import Target

LEVELS = 255
"""Number of levels into which an activation's range is divided."""
PRODUCTS = ("q", "k", "v", "o", "gate", "up", "down")


def rounded(weight: Tensor) -> Tensor:
    """Returns weight [out, in] rounded to 8-bit integers."""
    values, scale = quantise_channels(weight)
    return values.float() * scale[:, None]


class IntegerLinear(nn.Module):
    """A product like onnxruntime's DynamicQuantizeMatMul, except that each row has its own range. A server uses one
    range per run, which is slightly less accurate.
    """

    def __init__(self, linear: nn.Linear):
        super().__init__()
        self.weight = nn.Parameter(rounded(linear.weight.detach()), requires_grad=False)
        self.bias = linear.bias

    def forward(self, x: Tensor) -> Tensor:
        low, high = x.amin(-1, keepdim=True).clamp(max=0), x.amax(-1, keepdim=True).clamp(min=0)
        step = ((high - low) / LEVELS).clamp(min=torch.finfo(x.dtype).tiny)
        return nn.functional.linear((x / step).round() * step, self.weight, self.bias)


def in_integers(target: Target) -> Target:
    """Returns a copy of the target in which the products of all layers and the weights of the head are in integers."""
    copied = copy.deepcopy(target)
    for layer in copied.layers:
        for name in PRODUCTS:
            setattr(layer, name, IntegerLinear(getattr(layer, name)))
    copied.output = nn.Linear(target.config.width, target.config.vocab, bias=False)
    copied.output.weight.data.copy_(rounded(target.head_weight.detach()))
    return copied

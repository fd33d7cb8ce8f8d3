"""Measures the target of a model folder as the server computes it, to compare an export in int8 with its checkpoint."""

import pathlib

import torch
from torch import Tensor, nn

from ..export.graphs.int8 import ACTIVATION_LIMIT, SMALLEST
from ..export.restore import StoredTensors, graph_of, manifest_of, target_of
from ..model.transformer import Target
from .bits_per_byte import on_held_out
from .integers import PRODUCTS


class IntegerRows(nn.Module):
    """A product in 8-bit integers with one scale for each row of x, as in export/graphs/int8.py."""

    def __init__(self, weight: Tensor, bias: Tensor | None = None):
        super().__init__()
        self.weight, self.bias = nn.Parameter(weight, requires_grad=False), bias

    def forward(self, x: Tensor) -> Tensor:
        scale = x.abs().amax(-1, keepdim=True).clamp_min(SMALLEST) / ACTIVATION_LIMIT
        return nn.functional.linear((x / scale).round() * scale, self.weight, self.bias)


def precision_of(folder: pathlib.Path) -> str:
    return manifest_of(folder)["target"].get("precision", "float32")


@torch.no_grad()
def exported_target(folder: pathlib.Path) -> Target:
    """Returns the target of a model folder with its rounded weights, and rounded activations if it is in int8."""
    target = target_of(folder)
    if precision_of(folder) == "float32":
        return target
    for layer in target.layers:
        for name in PRODUCTS:
            linear = getattr(layer, name)
            setattr(layer, name, IntegerRows(linear.weight.detach(), linear.bias))
    head = StoredTensors(graph_of(folder, "target")).head("embedding" if target.config.tied else "output")
    target.output = IntegerRows(head)
    return target


def compare(folder: pathlib.Path, target: Target, data: pathlib.Path, count: int) -> dict:
    """Returns bits per byte of a folder's target and of the checkpoint from which the folder was exported, on `count`
    windows of each held-out split, and the differences in per cent.
    """
    figures = {"folder": on_held_out(exported_target(folder), data, count), "target": on_held_out(target, data, count)}
    change = {
        split: round(100 * (figures["folder"][split] / value - 1), 2) for split, value in figures["target"].items()
    }
    return {"precision": precision_of(folder), **figures, "change_percent": change}

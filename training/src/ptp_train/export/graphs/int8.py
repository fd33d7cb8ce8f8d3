"""Matrix products in 8-bit integers: activations are quantised at run time, and weights at export, with a scale for
each output channel.

With `int8`, every row has its own scale, so a token's result does not depend on its batch. onnxruntime's
`quantize_dynamic` (one scale for all rows) and `MatMulNBits` (kernels that vary with the number of rows) lack this
property. `int8-fused` is for drafters, which do not need this property. It uses one scale for all rows, and one kernel
instead of eight nodes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from onnx import TensorProto

from .weight_file import blocks

if TYPE_CHECKING:
    from .graph import Graph

FLOAT, UINT8 = TensorProto.FLOAT, TensorProto.UINT8
ACTIVATION_LIMIT = 127
WEIGHT_LIMIT = 63
"""Maximum magnitude of weights, which have 7 bits, because AVX2 adds pairs of uint8 x int8 products in saturating 16
bits: 2 * 255 * 63 < 2^15.
"""
ZERO = 128
SMALLEST = 1e-12
"""Minimum scale, for rows of zeros."""
NARROW = 64
"""Minimum number of inputs of a quantised matrix. Smaller matrices stay float32. They embed conditions and uniforms,
which takes hardly any time.
"""


def quantise_rows(g: Graph, x: str) -> tuple[str, str]:
    """Returns the names of x [..., K] as uint8 and of its scales [..., 1], where x is approximately (uint8 - ZERO) *
    scale. The nodes are added once per x.
    """
    integers, scale = f"{x}.u8", f"{x}.scale"
    if integers in g.quantised:
        return integers, scale
    g.quantised.add(integers)
    g.node("Abs", [x], f"{x}.abs")
    g.node("ReduceMax", [f"{x}.abs", g.constant([-1])], f"{x}.largest", keepdims=1)
    g.node("Max", [f"{x}.largest", g.constant(SMALLEST, np.float32)], f"{x}.positive")
    g.node("Div", [f"{x}.positive", g.constant(ACTIVATION_LIMIT, np.float32)], scale)
    g.node("Div", [x, scale], f"{x}.steps")
    g.node("Round", [f"{x}.steps"], f"{x}.rounded")
    g.node("Add", [f"{x}.rounded", g.constant(ZERO, np.float32)], f"{x}.shifted")
    g.node("Cast", [f"{x}.shifted"], integers, to=UINT8)
    return integers, scale


def quantise_channels(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns weight [out, in] as int8 of magnitude at most WEIGHT_LIMIT, and its scales [out].

    The integers are in the order of the transposed matrix, which graphs store.
    """
    integers = torch.empty(weight.T.shape, dtype=torch.int8, device=weight.device).T
    scales = torch.empty(len(weight), device=weight.device)
    start = 0
    for rows in blocks(weight):
        rows = rows.float()
        part = slice(start, start + len(rows))
        scales[part] = rows.abs().amax(1).clamp_min(SMALLEST) / WEIGHT_LIMIT
        integers[part] = (rows / scales[part, None]).round()
        start = part.stop
    return integers, scales


def stored_channels(g: Graph, name: str, weight: torch.Tensor) -> None:
    """Adds {name}.i8 [in, out] and {name}.scale [out], once per name."""
    if f"{name}.i8" not in g.initializers:
        values, channel_scales = quantise_channels(weight)
        g.initializers[f"{name}.i8"] = g.weights.add(f"{name}.i8", values.T, torch.int8)
        g.tensor(f"{name}.scale", channel_scales)


def fused_linear(g: Graph, name: str, x: str, weight: torch.Tensor, out: str) -> str:
    """Does the same as `integer_linear`, but with one scale and zero point for all rows of x."""
    stored_channels(g, name, weight)
    zeros = g.named(f"zeros{weight.shape[0]}", np.zeros(weight.shape[0], np.int8))
    return g.node("DynamicQuantizeMatMul", [x, f"{name}.i8", f"{name}.scale", zeros], out, "com.microsoft")


def integer_linear(g: Graph, name: str, x: str, weight: torch.Tensor, out: str) -> str:
    """Computes `Graph.linear` in integers: x [..., in] to [..., out]."""
    integers, scales = quantise_rows(g, x)
    stored_channels(g, name, weight)
    g.node("MatMulInteger", [integers, f"{name}.i8", g.constant(ZERO, np.uint8)], f"{out}.i32")
    g.node("Cast", [f"{out}.i32"], f"{out}.whole", to=FLOAT)
    g.node("Mul", [f"{out}.whole", scales], f"{out}.by_row")
    return g.node("Mul", [f"{out}.by_row", f"{name}.scale"], out)

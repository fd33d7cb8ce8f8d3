"""Attention with torch.nn.attention.varlen, whose signature and limits differ between versions and devices.

Split-KV is off: with it, a sequence's result would depend on the longest sequence of the batch.
"""

import contextlib
import functools
import importlib.util
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from .attention import Layer, VarlenBatch

BLOCK = 16
"""Number of rows in a block, unless the kernel needs larger blocks. The same as in engine/src/prefix-blocks.ts."""
TOLERANCE = 0.02
"""Maximum difference between a kernel and padded attention, for inputs from a standard normal distribution."""


@dataclass(frozen=True)
class Kernel:
    """One way to call varlen_attn."""

    paged: bool
    """Reads the pool through block tables. Other kernels need the rows of all sequences copied into one array first."""
    block_size: int = BLOCK
    starts: bool = False
    """Needs the first row of each sequence in addition to the block tables."""

    def __call__(self, query: Tensor, keys: Tensor, values: Tensor, layer: "Layer", batch: "VarlenBatch") -> Tensor:
        """Computes attention from query [R, Hq, D] and a layer's pool to [R, Hq, D]."""
        options = {
            "scale": layer.scale,
            "window_size": (-1 if layer.window is None else layer.window - 1, 0),
            "is_causal": True,  # Older versions have this instead of the window.
            "enable_gqa": True,
            "num_splits": 1,
        }
        first_rows = batch.row_starts if self.starts or not self.paged else None
        if self.paged:
            options |= {"seqused_k": batch.lengths, "block_table": batch.tables}
        else:
            keys, values = (pool.flatten(0, 1).index_select(0, batch.gathered) for pool in (keys, values))
        known = parameters()
        given = {name: value for name, value in options.items() if name in known}
        return varlen_attn()(query, keys, values, batch.starts, first_rows, len(query), batch.longest, **given)


KERNELS = (
    Kernel(paged=True),
    Kernel(paged=True, starts=True),
    Kernel(paged=True, block_size=256),
    Kernel(paged=True, block_size=256, starts=True),
    Kernel(paged=False),
)
"""Kernels in order of preference. FlashAttention 3 reads pages of any size. FlashAttention 2 reads only pages with a
multiple of 256 rows.
"""


@functools.cache
def varlen_attn() -> Callable[..., Tensor]:
    from torch.nn.attention import varlen

    return varlen.varlen_attn


@functools.cache
def parameters() -> frozenset[str]:
    """Returns the names of the parameters of varlen_attn."""
    return frozenset(inspect.signature(varlen_attn()).parameters)


def choose(layers: list["Layer"], device: torch.device) -> Kernel | None:
    """Returns the best kernel that computes all layers correctly on the device, or None if there is none."""
    supported = device.type == "cuda" and importlib.util.find_spec("torch.nn.attention.varlen") is not None
    if not supported or not all(fits(layer) for layer in layers):
        return None
    if importlib.util.find_spec("flash_attn_interface") is not None:
        with contextlib.suppress(Exception):
            torch.nn.attention.activate_flash_attention_impl("FA3")
    return next((kernel for kernel in KERNELS if is_correct(kernel, layers, device)), None)


def name_of(kernel: Kernel | None) -> str:
    """Returns the name of a kernel in logs and reports. None is padded attention."""
    return "padded" if kernel is None else "paged" if kernel.paged else "gathered"


def fits(layer: "Layer") -> bool:
    """Returns true if FlashAttention has kernels for the layer."""
    layout = layer.layout
    widths = layout.key_width == layout.value_width and layout.key_width <= 256 and layout.key_width % 8 == 0
    return layer.plain and widths and layout.dtype in (torch.bfloat16, torch.float16)


def is_correct(kernel: Kernel, layers: list["Layer"], device: torch.device) -> bool:
    """Compares a kernel with padded attention on random values, for each different layer."""
    from .kernel_check import largest_difference

    if kernel.paged and not {"block_table", "seqused_k"} <= parameters():
        return False
    different = {
        (layer.layout.heads, layer.query_heads, layer.layout.key_width, layer.window): layer for layer in layers
    }
    try:
        return not any(largest_difference(kernel, layer, device) > TOLERANCE for layer in different.values())
    except (RuntimeError, TypeError, ValueError):
        return False

"""Comparison of a varlen kernel with padded attention, on the device and with the layers of the model."""

import torch

from .attention import Layer, PaddedBatch, VarlenBatch, padded
from .varlen import Kernel

ROWS = 300
"""Number of rows of the longer sequence: enough for several blocks of any size."""
TOKENS = 9


def largest_difference(kernel: Kernel, layer: Layer, device: torch.device) -> float:
    """Returns the largest difference of the results for two sequences, which have their blocks in descending order."""
    generator = torch.Generator().manual_seed(0)

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator).to(device, layer.layout.dtype)

    def index(values: list, kind: torch.dtype = torch.int32) -> torch.Tensor:
        return torch.tensor(values, dtype=kind, device=device)

    size, lengths = kernel.block_size, [ROWS, TOKENS]
    blocks = -(-ROWS // size)
    tables = [list(range(2 * blocks - 1, blocks - 1, -1)), list(range(blocks))]
    pages = (2 * blocks, size, layer.layout.heads, layer.layout.key_width)
    keys, values = random(*pages), random(*pages)
    query = random(2 * TOKENS, layer.query_heads, layer.layout.key_width)
    positions = index([n - TOKENS + i for n in lengths for i in range(TOKENS)])
    rows = [
        table[row // size] * size + row % size for table, n in zip(tables, lengths, strict=True) for row in range(n)
    ]
    varlen_batch = VarlenBatch(
        rows=positions.long(),
        positions=positions,
        starts=index([0, TOKENS, 2 * TOKENS]),
        row_starts=index([0, ROWS, ROWS + TOKENS]),
        lengths=index(lengths),
        tables=index(tables),
        gathered=index(rows),
        longest=blocks * size,
    )
    padded_batch = PaddedBatch(
        rows=positions.long(),
        positions=positions,
        tables=index(tables, torch.int64),
        queries=torch.arange(2 * TOKENS, device=device).view(2, TOKENS),
        outputs=torch.arange(2 * TOKENS, device=device),
    )
    found = kernel(query, keys, values, layer, varlen_batch)
    expected = padded(query, keys, values, layer, padded_batch)
    return float((found - expected).abs().max())

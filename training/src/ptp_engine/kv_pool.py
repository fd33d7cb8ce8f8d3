"""Keys and values of all sequences, in blocks of equal size.

A sequence has a table of blocks. Full blocks can be shared by several sequences with the same beginning; a reference
count says by how many. A sequence that writes into a shared block gets its own copy first.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

import grpc
import torch
from torch import Tensor

from .errors import EngineError, not_open
from .gen import common_pb2
from .prefix import ROOT, PrefixIndex, digest

SCRATCH = 0
"""Block for the keys and values of padding tokens. No sequence contains this block."""


@dataclass
class Layout:
    """Shape of one layer's keys and values."""

    heads: int
    key_width: int
    value_width: int
    dtype: torch.dtype

    @property
    def bytes_per_token(self) -> int:
        return self.heads * (self.key_width + self.value_width) * self.dtype.itemsize


@dataclass
class Sequence:
    """An open sequence."""

    tokens: list[int] = field(default_factory=list)
    """Tokens of the valid rows."""
    blocks: list[int] = field(default_factory=list)
    digests: list[bytes] = field(default_factory=list)
    """Digests of the full blocks."""


class KvPool:
    """Blocks of all layers. Block i has the same rows in every layer."""

    def __init__(self, layers: list[Layout], blocks: int, block_size: int, device: torch.device, keep: bool = True):
        """Allocates `blocks` blocks of `block_size` rows.

        keep: keep the rows of closed sequences for sequences with the same beginning.
        """
        self.block_size = block_size
        self.keep = keep
        self.bytes_per_token = sum(layer.bytes_per_token for layer in layers)
        # Unwritten rows are masked, but a NaN in them would spread: 0 * NaN is NaN.
        self.keys, self.values = (
            [
                torch.zeros(blocks, block_size, layer.heads, width, dtype=layer.dtype, device=device)
                for layer, width in zip(layers, widths, strict=True)
            ]
            for widths in ([layer.key_width for layer in layers], [layer.value_width for layer in layers])
        )
        self.references = [0] * blocks
        self.free = [block for block in reversed(range(blocks)) if block != SCRATCH]
        self.index = PrefixIndex()
        self.sequences: dict[int, Sequence] = {}

    @property
    def rows(self) -> int:
        """Number of rows that sequences can have together."""
        return (len(self.references) - 1) * self.block_size

    def open(self, number: int) -> None:
        self.sequences[number] = Sequence()

    def close(self, number: int) -> None:
        """Closes a sequence. Its full blocks remain until they are evicted, the last one first."""
        sequence = self.get(number)
        del self.sequences[number]
        last = sequence.blocks[len(sequence.digests) - 1] if sequence.digests else None
        for block in reversed(sequence.blocks):
            self._release(block, is_last=block == last)

    def get(self, number: int) -> Sequence:
        """Returns an open sequence, or raises an EngineError."""
        sequence = self.sequences.get(number)
        if sequence is None:
            raise not_open(number)
        return sequence

    def reuse(self, number: int, tokens: Iterable[int]) -> int:
        """Gives an empty sequence the blocks of the longest known prefix of `tokens`. Returns the number of rows."""
        sequence, tokens = self.get(number), list(tokens)
        self.index.lookups += 1
        if not self.keep:
            return 0
        blocks, digests = self.index.find(tokens, self.block_size)
        for block in blocks:
            self.index.unused.pop(block, None)
            self.references[block] += 1
        rows = len(blocks) * self.block_size
        sequence.tokens, sequence.blocks, sequence.digests = tokens[:rows], blocks, digests
        self.index.hits += rows > 0
        self.index.reused_tokens += rows
        return rows

    def prepare(self, sequence: Sequence, at: int, count: int) -> None:
        """Rolls a sequence back to `at` rows and gives it writable blocks for `count` more rows."""
        self.roll_back(sequence, at)
        first, end = at // self.block_size, -(-(at + count) // self.block_size)
        for position in range(first, min(end, len(sequence.blocks))):
            self._make_writable(sequence, position, at % self.block_size if position == first else 0)
        while len(sequence.blocks) < end:
            sequence.blocks.append(self._allocate())
        for block in sequence.blocks[end:]:
            self._release(block)
        del sequence.blocks[end:]

    def roll_back(self, sequence: Sequence, rows: int) -> None:
        """Makes the rows from `rows` on invalid."""
        del sequence.tokens[rows:]
        del sequence.digests[rows // self.block_size :]

    def write(self, layer: int, rows: Tensor, keys: Tensor, values: Tensor) -> None:
        """Writes keys and values [1, heads, R, width] of a layer into rows [R] of the pool."""
        for pool, new in ((self.keys[layer], keys), (self.values[layer], values)):
            pool.flatten(0, 1).index_copy_(0, rows, new[0].transpose(0, 1))

    def commit(self, sequence: Sequence, tokens: list[int]) -> None:
        """Makes the rows valid that have been written for `tokens`, and full blocks known."""
        sequence.tokens += tokens
        if not self.keep:
            return
        size = self.block_size
        for position in range(len(sequence.digests), len(sequence.tokens) // size):
            parent = sequence.digests[-1] if sequence.digests else ROOT
            sequence.digests.append(digest(parent, sequence.tokens[position * size : (position + 1) * size]))
            self.index.add(sequence.blocks[position], sequence.digests[-1])

    def facts(self) -> common_pb2.PrefixCacheFacts:
        index = self.index
        return common_pb2.PrefixCacheFacts(
            sequences=sum(index.unused.values()),
            bytes=len(index.unused) * self.block_size * self.bytes_per_token,
            lookups=index.lookups,
            hits=index.hits,
            reused_tokens=index.reused_tokens,
        )

    def _make_writable(self, sequence: Sequence, position: int, rows: int) -> None:
        """Copies the first `rows` rows of a block if other sequences share it."""
        block = sequence.blocks[position]
        if self.references[block] == 1:
            self.index.forget(block)
            return
        copy = self._allocate()
        for pool in (*self.keys, *self.values):
            pool[copy, :rows] = pool[block, :rows]
        sequence.blocks[position] = copy
        self._release(block)

    def _allocate(self) -> int:
        block = self.free.pop() if self.free else self.index.evict()
        if block is None:
            raise EngineError(
                grpc.StatusCode.RESOURCE_EXHAUSTED,
                f"the KV cache must hold all open sequences, but its {self.rows} rows are in use by "
                f"{len(self.sequences)} sequences: close a sequence, or start the engine with more memory",
            )
        self.references[block] = 1
        return block

    def _release(self, block: int, is_last: bool = False) -> None:
        self.references[block] -= 1
        if self.references[block] > 0:
            return
        if block in self.index.digests:
            self.index.unused[block] = is_last
        else:
            self.free.append(block)

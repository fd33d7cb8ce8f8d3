"""Packs the tokens of several sequences into passes of the model.

With a varlen kernel, every pass has the same number of tokens, so that matrix products always run in the same kernels
and no result depends on the other tokens. Padding tokens form one more sequence, in the scratch block.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from .attention import Batch, PaddedBatch, VarlenBatch
from .kv_pool import SCRATCH, Sequence
from .varlen import Kernel

SHORTEST_GATHER = 1024
"""Smallest number of rows to gather. Larger numbers are powers of 2, so that few graphs are enough."""


@dataclass
class Piece:
    """Successive tokens of one slot in one pass."""

    slot: int
    first: int
    """Index of the first token in the slot."""
    tokens: list[int]
    sequence: Sequence
    at: int
    """Row of the first token."""

    @property
    def end(self) -> int:
        return self.at + len(self.tokens)


def passes(pieces: list[Piece], capacity: int, most: int) -> Iterator[list[Piece]]:
    """Distributes the tokens over passes of at most `capacity` tokens and `most` pieces. Splits pieces."""
    part: list[Piece] = []
    left = capacity
    for piece in pieces:
        done = 0
        while done < len(piece.tokens):
            if left == 0 or len(part) == most:
                yield part
                part, left = [], capacity
            tokens = piece.tokens[done : done + left]
            part.append(Piece(piece.slot, piece.first + done, tokens, piece.sequence, piece.at + done))
            done += len(tokens)
            left -= len(tokens)
    if part:
        yield part


@dataclass(frozen=True)
class Shape:
    """Sizes of a pass. Passes of equal sizes can use one CUDA graph."""

    tokens: int
    sequences: int
    blocks: int = 0
    """Width of the block tables."""
    gathered: int = 0
    queries: int = 0
    """Largest number of tokens of a sequence, for padded attention."""

    def fields(self) -> dict[str, tuple[int, ...]]:
        """Returns the shapes of the arrays of a pass, which are uploaded together."""
        count = self.sequences
        fields: dict[str, tuple[int, ...]] = {name: (self.tokens,) for name in ("ids", "positions", "rows")}
        if self.queries:
            return fields | {
                "queries": (count, self.queries),
                "outputs": (self.tokens,),
                "tables": (count, self.blocks),
            }
        fields |= {"starts": (count + 1,), "row_starts": (count + 1,), "lengths": (count,)}
        return fields | ({"gathered": (self.gathered,)} if self.gathered else {"tables": (count, self.blocks)})

    def split(self, flat):
        """Returns views of the arrays in `flat`, a NumPy array or a tensor."""
        views, at = {}, 0
        for name, shape in self.fields().items():
            size = math.prod(shape)
            views[name] = flat[at : at + size].reshape(shape)
            at += size
        return views

    @property
    def size(self) -> int:
        return sum(math.prod(shape) for shape in self.fields().values())


class Packer:
    """Makes the arrays of passes."""

    def __init__(self, kernel: Kernel | None, block_size: int, tokens: int, sequences: int, longest: int):
        """tokens: number of tokens of a pass, with a kernel. sequences: maximum number of sequences of a pass.

        longest: maximum number of rows of a sequence.
        """
        self.kernel = kernel
        self.block_size = block_size
        self.tokens = tokens
        self.sequences = sequences
        self.longest = longest

    def pack(self, pieces: list[Piece]) -> tuple[np.ndarray, Shape]:
        """Returns the arrays of a pass, packed into one int32 array."""
        return self._pack_padded(pieces) if self.kernel is None else self._pack_varlen(pieces)

    def _pack_padded(self, pieces: list[Piece]) -> tuple[np.ndarray, Shape]:
        counts = [len(piece.tokens) for piece in pieces]
        longest = max(counts)
        blocks = max(-(-piece.end // self.block_size) for piece in pieces)
        shape = Shape(sum(counts), len(pieces), blocks=blocks, queries=longest)
        flat = np.zeros(shape.size, np.int32)
        arrays = shape.split(flat)
        self._fill_tokens(arrays, pieces)
        self._fill_tables(arrays["tables"], pieces)
        start = 0
        for i, count in enumerate(counts):
            arrays["queries"][i] = start + np.minimum(np.arange(longest), count - 1)
            arrays["outputs"][start : start + count] = i * longest + np.arange(count)
            start += count
        return flat, shape

    def _pack_varlen(self, pieces: list[Piece]) -> tuple[np.ndarray, Shape]:
        tokens = sum(len(piece.tokens) for piece in pieces)
        padding = self.tokens - tokens
        ends = [piece.end for piece in pieces]
        if self.kernel.paged:
            shape = Shape(self.tokens, self.sequences + 1, blocks=-(-self.longest // self.block_size))
        else:
            gathered = max(SHORTEST_GATHER, 1 << (sum(ends) + padding - 1).bit_length())
            shape = Shape(self.tokens, self.sequences + 1, gathered=gathered)
        flat = np.zeros(shape.size, np.int32)
        arrays = shape.split(flat)
        self._fill_tokens(arrays, pieces)
        arrays["positions"][tokens:] = arrays["rows"][tokens:] = np.arange(padding) % self.block_size
        lengths = arrays["lengths"]
        lengths[: len(pieces)], lengths[-1] = ends, padding
        np.cumsum(lengths, out=arrays["row_starts"][1:])
        counts = np.zeros_like(lengths)
        counts[: len(pieces)], counts[-1] = [len(piece.tokens) for piece in pieces], padding
        np.cumsum(counts, out=arrays["starts"][1:])
        if self.kernel.paged:
            self._fill_tables(arrays["tables"], pieces)
        else:
            start = 0
            for piece in pieces:
                arrays["gathered"][start : start + piece.end] = self._rows(piece.sequence, 0, piece.end)
                start += piece.end
        return flat, shape

    def _fill_tokens(self, arrays: dict[str, np.ndarray], pieces: list[Piece]) -> None:
        start = 0
        for piece in pieces:
            here = slice(start, start + len(piece.tokens))
            arrays["ids"][here] = piece.tokens
            arrays["positions"][here] = np.arange(piece.at, piece.end)
            arrays["rows"][here] = self._rows(piece.sequence, piece.at, piece.end)
            start = here.stop

    def _fill_tables(self, tables: np.ndarray, pieces: list[Piece]) -> None:
        for table, piece in zip(tables, pieces, strict=False):
            count = -(-piece.end // self.block_size)
            table[:count] = piece.sequence.blocks[:count]

    def _rows(self, sequence: Sequence, first: int, end: int) -> np.ndarray:
        """Returns the rows of the pool for the rows [first, end) of a sequence."""
        size = self.block_size
        skipped = first // size
        blocks = np.array(sequence.blocks[skipped : -(-end // size)], np.int32)
        rows = (blocks[:, None] * size + np.arange(size, dtype=np.int32)).ravel()
        return rows[first - skipped * size : end - skipped * size]


def unpack(flat: Tensor, shape: Shape, longest: int) -> tuple[Tensor, Batch]:
    """Returns the token ids [R] and the batch of a pass from its arrays on the device."""
    arrays = shape.split(flat)
    ids, positions, rows = arrays["ids"], arrays["positions"], arrays["rows"].long()
    if shape.queries:
        indices = {name: arrays[name].long() for name in ("tables", "queries", "outputs")}
        return ids, PaddedBatch(rows=rows, positions=positions, **indices)
    return ids, VarlenBatch(
        rows=rows,
        positions=positions,
        starts=arrays["starts"],
        row_starts=arrays["row_starts"],
        lengths=arrays["lengths"],
        tables=arrays.get("tables"),
        gathered=arrays.get("gathered"),
        longest=longest,
    )


assert SCRATCH == 0  # Zeros in block tables and rows are the scratch block.

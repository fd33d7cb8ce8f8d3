"""Packs the tokens of several sequences into passes of the model.

With a varlen kernel, every pass has the same number of tokens, so that matrix products always run in the same kernels
and no result depends on the other tokens. Padding tokens form one more sequence, in the scratch block.
"""

import functools
import itertools
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from .attention import Batch, PaddedBatch, VarlenBatch
from .kv_pool import SCRATCH, Sequence
from .varlen import Kernel

SHORTEST_GATHER = 1024
"""Minimum number of rows to gather. Larger numbers are rounded up to powers of 2, so that a few graphs suffice."""


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
    """Distributes the tokens over passes of at most `capacity` tokens and `most` pieces. Splits pieces if necessary."""
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
    """Sizes of a pass. Passes of the same sizes can share a CUDA graph."""

    tokens: int
    sequences: int
    blocks: int = 0
    """Width of the block tables."""
    gathered: int = 0
    queries: int = 0
    """Maximum number of tokens in a sequence for padded attention, or 0 for varlen kernels."""

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
        return {name: flat[here].reshape(shape) for name, (here, shape) in places(self).items()}

    @property
    def size(self) -> int:
        return sum(math.prod(shape) for shape in self.fields().values())


@functools.lru_cache(maxsize=1024)
def places(shape: Shape) -> dict[str, tuple[slice, tuple[int, ...]]]:
    """Returns the slice and the shape of each array. Cached, because most steps have a shape that occurred before."""
    fields = shape.fields()
    return dict(zip(fields, zip(slices(map(math.prod, fields.values())), fields.values(), strict=True), strict=True))


class Packer:
    """Builds the arrays of passes."""

    def __init__(self, kernel: Kernel | None, block_size: int, tokens: int, sequences: int, longest: int):
        """tokens: number of tokens in a pass with a kernel. sequences: maximum number of sequences in a pass.

        longest: maximum number of rows in a sequence.
        """
        self.kernel = kernel
        self.block_size = block_size
        self.tokens = tokens
        self.sequences = sequences
        self.longest = longest

    def pack(self, pieces: list[Piece]) -> tuple[np.ndarray, Shape]:
        """Returns the arrays of a pass, packed into one int32 array."""
        return pack_padded(pieces, self.block_size) if self.kernel is None else self._pack_varlen(pieces)

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
        fill_tokens(arrays, pieces, self.block_size)
        arrays["positions"][tokens:] = arrays["rows"][tokens:] = np.arange(padding) % self.block_size
        lengths = arrays["lengths"]
        lengths[: len(pieces)], lengths[-1] = ends, padding
        np.cumsum(lengths, out=arrays["row_starts"][1:])
        counts = np.zeros_like(lengths)
        counts[: len(pieces)], counts[-1] = [len(piece.tokens) for piece in pieces], padding
        np.cumsum(counts, out=arrays["starts"][1:])
        if self.kernel.paged:
            fill_tables(arrays["tables"], pieces, self.block_size)
        else:
            for here, piece in zip(slices(ends), pieces, strict=True):
                arrays["gathered"][here] = pool_rows(piece.sequence, piece.end, self.block_size)
        return flat, shape


def pack_padded(pieces: list[Piece], block_size: int) -> tuple[np.ndarray, Shape]:
    """Returns the arrays of a pass for padded attention, packed into one int32 array."""
    counts = np.array([len(piece.tokens) for piece in pieces])
    queries, outputs = padded_places(counts)
    blocks = max(-(-piece.end // block_size) for piece in pieces)
    shape = Shape(len(outputs), len(pieces), blocks=blocks, queries=queries.shape[1])
    flat = np.zeros(shape.size, np.int32)
    arrays = shape.split(flat)
    fill_tokens(arrays, pieces, block_size)
    fill_tables(arrays["tables"], pieces, block_size)
    arrays["queries"][:], arrays["outputs"][:] = queries, outputs
    return flat, shape


def padded_places(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the places of packed rows in a padded table of S groups with `counts` [S] rows.

    The first result [S, Q] contains the packed index of each cell, where padding repeats a group's last row. The second
    result contains the cell of each packed row in the flattened table.
    """
    ends = counts.cumsum()
    column = np.arange(counts.max())
    cells = np.minimum((ends - counts)[:, None] + column, ends[:, None] - 1)
    return cells, np.nonzero((column < counts[:, None]).ravel())[0]


def slices(counts: Iterable[int]) -> Iterator[slice]:
    """Returns the slices of successive parts with `counts` elements."""
    return itertools.starmap(slice, itertools.pairwise(itertools.accumulate(counts, initial=0)))


def parts(pieces: list[Piece]) -> Iterator[tuple[slice, Piece]]:
    """Returns each piece with the slice of its tokens among the tokens of all pieces."""
    return zip(slices(len(piece.tokens) for piece in pieces), pieces, strict=True)


def fill_tokens(arrays: dict[str, np.ndarray], pieces: list[Piece], block_size: int) -> None:
    """Fills the first places. Lists are faster than NumPy for the few tokens of a step."""
    rows = [(piece.sequence.blocks, at) for piece in pieces for at in range(piece.at, piece.end)]
    here = slice(len(rows))
    arrays["ids"][here] = [token for piece in pieces for token in piece.tokens]
    arrays["positions"][here] = [at for _, at in rows]
    arrays["rows"][here] = [blocks[at // block_size] * block_size + at % block_size for blocks, at in rows]


def fill_tables(tables: np.ndarray, pieces: list[Piece], block_size: int) -> None:
    for table, piece in zip(tables, pieces, strict=False):
        count = -(-piece.end // block_size)
        table[:count] = piece.sequence.blocks[:count]


def pool_rows(sequence: Sequence, count: int, block_size: int) -> np.ndarray:
    """Returns the rows of the pool for the first `count` rows of a sequence."""
    blocks = np.array(sequence.blocks[: -(-count // block_size)], np.int32)
    return (blocks[:, None] * block_size + np.arange(block_size, dtype=np.int32)).ravel()[:count]


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

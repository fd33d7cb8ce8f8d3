"""The drafter's own layers over the branches of a run, and the picks of their tokens.

Symbols in tensor shapes: W is the number of branches of all slots, K the number of positions in the longest branch, S
the number of sequences, Q the maximum number of positions in a sequence, C the number of rows of the longest context, H
and G the numbers of query heads and of key/value heads, D the number of uniforms per position, and V the number of
tokens in the vocabulary. Shorter branches are padded to K positions. No other position attends to the padding.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ptp_train.model import coordinates
from ptp_train.model.drafter import Drafter

from .batch import padded_places
from .context import ContextStream
from .graphs import Recorded, Recording
from .kv_pool import SCRATCH, KvPool, Sequence
from .sampler import UNIT
from .tree import pick_dense

USUAL = (1, 2, 4, 8, 16)
"""Numbers of branches for which recordings are made when the model is loaded."""


class Branch(NamedTuple):
    """Tokens to draft after the first `visible` context rows of a sequence."""

    sequence: Sequence
    visible: int
    start: int
    """Index of the first drafted token. With `feature` drafters, the token before it has no row yet."""
    last: int
    """Token before the branch."""
    length: int
    excluded: int = -1
    """Token that the branch cannot start with, or -1."""
    conditions: tuple[float, float, float] = (0.0, 1.0, 0.0)
    """Temperature, top_p and top_k."""


class Grid(NamedTuple):
    """The positions of a run, on the device. The W K positions of all branches are packed, branch by branch."""

    cos: Tensor
    sin: Tensor
    blocks: Tensor
    """[S, B] block tables of the sequences."""
    queries: Tensor
    """[S, Q] packed index of each position of a sequence. Padding repeats a position."""
    outputs: Tensor
    """[W K] index of each packed position in the flattened `queries`."""
    mask: Tensor
    """[S, 1, H / G Q, C + Q] true where a position attends: to the visible context rows, and to its branch up to
    itself. All queries that share a key head have the same values.
    """


class Drafting:
    def __init__(self, drafter: Drafter, context: ContextStream, record: Callable[[Callable], Recording] | None):
        """record: makes recordings of the picks, which consist of many small operations. None to run them directly."""
        self.drafter, self.context = drafter, context
        self.recorded = record and Recorded(self.tokens, context.device, record)

    def warm_up(self) -> None:
        """Makes the recordings of usual runs, so that no client waits for a recording. The KV pool is allocated later,
        from the memory that the recordings leave.
        """
        c, context = self.drafter.config, self.context
        k = c.length - c.given
        for w in USUAL if self.recorded is not None else ():
            hidden = torch.zeros(w, k, c.sizes.width, dtype=context.dtype, device=context.device)
            u = torch.zeros(w, k, c.coordinates, device=context.device)
            last, excluded = torch.zeros(2, w, dtype=torch.int64, device=context.device)
            self.recorded((hidden, last, u, torch.zeros(w, device=context.device), excluded))

    def draft(
        self, pool: KvPool, branches: list[Branch], u: Tensor, feature: Tensor | None = None
    ) -> tuple[list[list[int]], list[list[float]]]:
        """Returns tokens and confidences of each branch. The branches of a sequence must be adjacent.

        u [W, K, D]: uniforms. feature [W, width]: for `feature` drafters, the hidden states that predicted `last`.
        """
        upload = self.context.upload
        last, excluded = upload(np.array([[b.last, b.excluded] for b in branches])).unbind(1)
        temperature, top_p, top_k = upload(np.array([b.conditions for b in branches], np.float32)).unbind(1)
        conditions = tuple(t[None, :, None] for t in (temperature, top_p, top_k))
        x = self.drafter.inputs(last[None], u[None], conditions, None if feature is None else feature[None])
        hidden = self.hidden(pool, x.to(self.context.dtype).flatten(1, 2), self.grid(pool, branches, u.shape[1]))
        given = (hidden.view(*u.shape[:2], -1), last, u, temperature, excluded)
        tokens, confidences = self.tokens(*given) if self.recorded is None else self.recorded(self.rounded(*given))
        lengths = [b.length for b in branches]
        return (
            [row[:length] for row, length in zip(tokens[: len(lengths)].tolist(), lengths, strict=True)],
            [row[:length] for row, length in zip(confidences[: len(lengths)].tolist(), lengths, strict=True)],
        )

    def rounded(self, hidden: Tensor, last: Tensor, u: Tensor, temperature: Tensor, excluded: Tensor):
        """Pads the inputs of `tokens` to few shapes: a power of 2 of branches, and the maximum length."""
        w, k = u.shape[:2]
        rows = (1 << (w - 1).bit_length()) - w
        positions = self.drafter.config.length - self.drafter.config.given - k
        hidden, u = (F.pad(t, (0, 0, 0, positions, 0, rows)) for t in (hidden, u))
        last, temperature, excluded = (F.pad(t, (0, rows)) for t in (last, temperature, excluded))
        return hidden, last, u, temperature, excluded

    def grid(self, pool: KvPool, branches: list[Branch], k: int) -> Grid:
        upload = self.context.upload
        first = [i for i, b in enumerate(branches) if i == 0 or b.sequence is not branches[i - 1].sequence]
        counts = np.diff([*first, len(branches)]) * k
        blocks = block_tables([branches[i].sequence for i in first])
        queries, outputs = padded_places(counts)
        visible, start = upload(np.array([[b.visible, b.start] for b in branches])).unbind(1)
        places = upload(queries)
        branch = places // k
        context = torch.arange(blocks.shape[1] * pool.block_size, device=visible.device) < visible[branch][..., None]
        real = upload(np.arange(queries.shape[1]) < counts[:, None])[:, None]
        own = (branch[:, :, None] == branch[:, None]) & (places[:, None] <= places[:, :, None]) & real
        positions = start[:, None] - 1 + torch.arange(k, device=visible.device)
        rotations = self.context.rotations(positions.flatten())
        sizes = self.drafter.config.sizes
        mask = torch.cat([context, own], -1).repeat(1, sizes.heads // sizes.kv_heads, 1)[:, None]
        return Grid(*rotations, upload(blocks), places, upload(outputs), mask)

    def hidden(self, pool: KvPool, x: Tensor, grid: Grid) -> Tensor:
        """Maps the inputs [1, W K, width] to the normalised last hidden states of the same shape."""
        c = self.drafter.config
        for layer, source in zip(self.drafter.layers, c.source, strict=True):
            q, keys, values = layer.project(x, grid.cos, grid.sin)
            both = (
                torch.cat([past[source][grid.blocks].flatten(1, 2).transpose(1, 2), padded(new, grid)], 2)
                for past, new in ((pool.keys, keys), (pool.values, values))
            )
            x = layer.finish(x, packed(attend(padded(q, grid), *both, grid.mask), grid))
        return self.drafter.norm(x)

    def tokens(self, hidden: Tensor, last: Tensor, u: Tensor, temperature: Tensor, excluded: Tensor):
        """Picks tokens [W, K] from hidden [W, K, width]. Returns them with their probabilities. The other arguments are
        [W], and [W, K, D] for u.
        """
        return self.drafter.picks(hidden, last, u, temperature[:, None].expand(u.shape[:2]), excluded, pick)


def block_tables(sequences: list[Sequence]) -> np.ndarray:
    """Returns the block tables [S, B] of sequences, padded with the scratch block."""
    tables = np.full((len(sequences), max(len(s.blocks) for s in sequences)), SCRATCH, np.int64)
    for row, sequence in zip(tables, sequences, strict=True):
        row[: len(sequence.blocks)] = sequence.blocks
    return tables


def pick(kind: str, p: Tensor, u: Tensor) -> Tensor:
    """Returns the same tokens [...] as `coordinates.pick` for uniforms u [..., D] and probabilities p [..., V], with
    far fewer operations.
    """
    if kind != "tree":
        return coordinates.pick(kind, p, u)
    return pick_dense((p * UNIT).flatten(0, -2), u.flatten(0, -2)).view(p.shape[:-1])


def padded(x: Tensor, grid: Grid) -> Tensor:
    """Returns the packed x [1, heads, W K, width] by sequence, [S, heads, Q, width]."""
    return x[0].transpose(0, 1)[grid.queries].transpose(1, 2)


def packed(x: Tensor, grid: Grid) -> Tensor:
    """Reverses `padded`."""
    return x.transpose(1, 2).flatten(0, 1)[grid.outputs].transpose(0, 1)[None]


def attend(q: Tensor, keys: Tensor, values: Tensor, mask: Tensor) -> Tensor:
    """Returns the attention [S, H, Q, D] of q [S, H, Q, D] over keys and values [S, G, N, D] with `Grid.mask`.

    The queries that share a key head become rows of one matrix, so that keys and values need not be repeated.
    """
    groups, heads = q.shape[1] // keys.shape[1], keys.shape[1]
    rows = q.unflatten(1, (heads, groups)).flatten(2, 3)
    out = F.scaled_dot_product_attention(rows, keys, values, attn_mask=mask)
    return out.unflatten(2, (groups, q.shape[2])).flatten(1, 2)

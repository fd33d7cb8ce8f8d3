"""The context stream of a drafter: runs new tokens of several sequences through its layers and stores their rows."""

import numpy as np
import torch
from torch import Tensor

from ptp_train.model.drafter import Drafter
from ptp_train.model.transformer import Layer, Target, rope_tables

from . import attention
from .batch import Piece, pack_padded, unpack
from .kv_pool import KvPool, Layout


class ContextStream:
    """Context layers of a drafter: the whole target with `feature` drafters, else the first layers of the target or the
    drafter's own. Without `wanted` tokens, the last layer computes only keys and values.
    """

    def __init__(self, drafter: Drafter, target: Target | None, device: torch.device):
        """target: None for a `separate` drafter, whose own layers are the context stream."""
        model = drafter if target is None else target
        self.config = c = drafter.config.sizes
        self.embedding = model.embedding
        self.layers: list[Layer] = list(model.layers[: drafter.config.depth])
        self.device, self.dtype = device, model.embedding.weight.dtype
        layout = Layout(c.kv_heads, c.head_width, c.head_width, self.dtype)
        self.layouts = [layout] * len(self.layers)
        self.attention = attention.Layer(layout, c.heads, None, None, None, None)

    def use_positions(self, count: int) -> None:
        """Computes the rotary tables of the positions that sequences and drafts can have."""
        tables = rope_tables(torch.arange(count), self.config)
        self.cos, self.sin = (table.to(self.device, self.dtype) for table in tables)

    def rotations(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Returns cos and sin of the positions [N], each [1, N, D/2]."""
        return self.cos[positions][None], self.sin[positions][None]

    def extend(self, pool: KvPool, pieces: list[Piece], wanted: Tensor | None = None) -> Tensor | None:
        """Writes the rows of all pieces, which the pool has prepared.

        wanted [R]: indices into the concatenated tokens. Returns the last hidden states [R, width] of these tokens.
        """
        arrays, shape = pack_padded(pieces, pool.block_size)
        ids, batch = unpack(self.upload(arrays), shape, 0)
        cos, sin = self.rotations(batch.positions)
        x = self.embedding(ids)[None]
        for n, layer in enumerate(self.layers):
            last = n == len(self.layers) - 1
            if last and wanted is None:
                pool.write(n, batch.rows, *layer.keys_values(x, cos, sin))
                return None
            q, k, v = layer.project(x, cos, sin)
            pool.write(n, batch.rows, k, v)
            attended = attention.padded(
                q[0].transpose(0, 1), pool.keys[n], pool.values[n], self.attention, batch
            ).transpose(0, 1)[None]
            if last:
                x, attended = x[:, wanted], attended[:, :, wanted]
            x = layer.finish(x, attended)
        return x[0]

    def upload(self, values: np.ndarray) -> Tensor:
        return torch.from_numpy(values).to(self.device, non_blocking=True)

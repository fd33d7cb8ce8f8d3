"""Attention of packed tokens over the KV pool, registered in transformers as `ptp_paged`.

The layers of a model find the pool and the tokens of the current pass in the attribute `ptp_layer` of their modules.
"""

from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AttentionInterface

from .kv_pool import KvPool, Layout
from .varlen import Kernel

NAME = "ptp_paged"
IGNORED = ("dropout", "is_causal", "position_ids", "use_cache", "output_")
"""Beginnings of arguments of attention functions that change nothing here, or that are checked otherwise."""


@dataclass
class Batch:
    """Packed tokens of one pass, on the device. R is the number of tokens, and S the number of sequences."""

    rows: Tensor
    """[R] int64 rows of the pool for the tokens' keys and values."""
    positions: Tensor
    """[R] positions in the sequences."""


@dataclass
class VarlenBatch(Batch):
    """Batch for varlen_attn."""

    starts: Tensor
    """[S + 1] int32 first token of each sequence."""
    row_starts: Tensor
    """[S + 1] int32 first row of each sequence."""
    lengths: Tensor
    """[S] int32 number of rows of each sequence."""
    tables: Tensor | None
    """[S, B] int32 block tables, for paged kernels."""
    gathered: Tensor | None
    """[K] int32 rows of all sequences in the pool, for other kernels."""
    longest: int
    """Upper limit of `lengths`."""


@dataclass
class PaddedBatch(Batch):
    """Batch for `padded`. T is the maximum number of tokens in a sequence, and K the maximum number of rows."""

    tables: Tensor
    """[S, B] int64 block tables."""
    queries: Tensor
    """[S, T] int64 tokens of each sequence. Padding repeats a token."""
    outputs: Tensor
    """[R] int64 index of each token in the flattened `queries`."""
    masks: dict[tuple[int | None, int], Tensor] = field(default_factory=dict)

    def mask(self, window: int | None, groups: int, rows: int, dtype: torch.dtype) -> Tensor:
        """Returns [S, 1, T * groups, K]: 0 for the rows to which a query attends, and else minus infinity."""
        if (window, groups) not in self.masks:
            last = self.positions[self.queries][..., None]
            row = torch.arange(rows, device=last.device)
            seen = row <= last if window is None else (row <= last) & (row > last - window)
            mask = torch.zeros(seen.shape, dtype=dtype, device=last.device).masked_fill_(~seen, -torch.inf)
            self.masks[window, groups] = mask.repeat_interleave(groups, 1)[:, None]
        return self.masks[window, groups]


@dataclass
class Pool:
    """The KV pool, the kernel that reads it, and the current pass."""

    kv: KvPool
    kernel: Kernel | None
    """None for padded attention."""
    batch: Batch | None = None


@dataclass
class Layer:
    """An attention layer of the model."""

    layout: Layout
    query_heads: int
    scale: float | None
    window: int | None
    softcap: float | None
    sinks: Tensor | None
    number: int = 0
    pool: Pool | None = None

    @property
    def plain(self) -> bool:
        """True if attention is softmax of scaled scores without extras."""
        return self.softcap is None and self.sinks is None


def attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    **others: object,
) -> tuple[Tensor, None]:
    """Attention function of transformers, from query [1, Hq, R, D] to [1, R, Hq, Dv]."""
    layer: Layer | None = getattr(module, "ptp_layer", None)
    if layer is None:
        layout = Layout(key.shape[1], key.shape[-1], value.shape[-1], key.dtype)
        others["attention_mask"] = attention_mask
        Probe.add(module, Layer(layout, query.shape[1], scaling, sliding_window, softcap, s_aux), others)
        return query.new_zeros(1, query.shape[2], query.shape[1], value.shape[-1]), None
    pool, number = layer.pool, layer.number
    pool.kv.write(number, pool.batch.rows, key, value)
    attend = pool.kernel or padded
    keys, values = pool.kv.keys[number], pool.kv.values[number]
    return attend(query[0].transpose(0, 1), keys, values, layer, pool.batch)[None], None


AttentionInterface.register(NAME, attention)


class Probe:
    """Collects the attention layers that a forward pass calls."""

    active: "Probe | None" = None

    def __init__(self) -> None:
        self.layers: list[tuple[nn.Module, Layer]] = []

    def __enter__(self) -> "Probe":
        Probe.active = self
        return self

    def __exit__(self, *_: object) -> None:
        Probe.active = None

    @classmethod
    def add(cls, module: nn.Module, layer: Layer, others: dict[str, object]) -> None:
        """Adds a layer. Exits if its attention is not causal, or has arguments that this module does not know."""
        name = type(module).__name__
        assert cls.active is not None, f"{name} belongs to no engine"
        unknown = sorted(k for k, value in others.items() if value is not None and not k.startswith(IGNORED))
        if unknown:
            raise SystemExit(f"MODEL must have causal attention without {unknown[0]}, which {name} uses")
        causal = others.get("is_causal")
        if not (getattr(module, "is_causal", True) if causal is None else causal):
            raise SystemExit(f"MODEL must have causal attention, but that of {name} is bidirectional")
        cls.active.layers.append((module, layer))


def padded(query: Tensor, keys: Tensor, values: Tensor, layer: Layer, batch: PaddedBatch) -> Tensor:
    """Computes attention from query [R, Hq, D] to [R, Hq, Dv] as one padded batch.

    The queries that share a key head become rows of one matrix, so that keys and values need not be repeated.
    """
    heads = layer.layout.heads
    groups = layer.query_heads // heads
    k, v = (pool[batch.tables].flatten(1, 2).transpose(1, 2) for pool in (keys, values))
    q = query[batch.queries].unflatten(2, (heads, groups)).permute(0, 2, 1, 3, 4).flatten(2, 3)
    mask = batch.mask(layer.window, groups, k.shape[2], q.dtype)
    if layer.plain:
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=layer.scale)
    else:
        out = with_extras(q, k, v, mask, layer)
    out = out.unflatten(2, (-1, groups)).permute(0, 2, 1, 3, 4)
    return out.reshape(-1, layer.query_heads, out.shape[-1])[batch.outputs]


def with_extras(q: Tensor, k: Tensor, v: Tensor, mask: Tensor, layer: Layer) -> Tensor:
    """Computes attention with softcapping of the scores (Gemma 2) or sinks (gpt-oss).

    A sink is a score per head without a value: it takes a part of the probability.
    """
    scores = q @ k.transpose(2, 3) * (layer.scale or q.shape[-1] ** -0.5)
    if layer.softcap is not None:
        scores = torch.tanh(scores / layer.softcap) * layer.softcap
    scores = (scores + mask).float()
    if layer.sinks is None:
        return scores.softmax(-1).to(v.dtype) @ v
    batch, heads, queries, _ = scores.shape
    sinks = layer.sinks.float().view(heads, 1, -1).expand(batch, heads, queries * heads // len(layer.sinks), -1)
    return torch.cat([scores, sinks.flatten(2)[..., None]], -1).softmax(-1)[..., :-1].to(v.dtype) @ v

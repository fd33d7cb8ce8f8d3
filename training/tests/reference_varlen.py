"""varlen_attn of PyTorch in simple code, because the CPU has no kernel for it."""

import torch
import torch.nn.functional as F
from torch import Tensor


def varlen_attn(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    cu_seq_q: Tensor,
    cu_seq_k: Tensor | None,
    max_q: int,
    max_k: int,
    *,
    scale: float | None = None,
    window_size: tuple[int, int] = (-1, -1),
    enable_gqa: bool = False,
    seqused_k: Tensor | None = None,
    block_table: Tensor | None = None,
    num_splits: int | None = None,
) -> Tensor:
    assert window_size[1] == 0 and num_splits == 1
    out = torch.full((*query.shape[:2], value.shape[-1]), torch.nan, dtype=query.dtype)
    for i in range(len(cu_seq_q) - 1):
        start, end = cu_seq_q[i : i + 2].tolist()
        if start == end:
            continue
        if block_table is not None:
            rows = int(seqused_k[i])
            k, v = (pool[block_table[i].long()].flatten(0, 1)[:rows] for pool in (key, value))
        else:
            k, v = (pool[cu_seq_k[i] : cu_seq_k[i + 1]] for pool in (key, value))
        assert end - start <= max_q and len(k) <= max_k
        last = torch.arange(len(k) - (end - start), len(k))[:, None]
        row = torch.arange(len(k))
        seen = (row <= last) & ((row >= last - window_size[0]) if window_size[0] >= 0 else True)
        q, k, v = (x.transpose(0, 1)[None] for x in (query[start:end], k, v))
        attended = F.scaled_dot_product_attention(q, k, v, attn_mask=seen, scale=scale, enable_gqa=enable_gqa)
        out[start:end] = attended[0].transpose(0, 1)
    return out

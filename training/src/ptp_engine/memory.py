"""Size and allocation of the KV pool."""

import torch

from . import parallel
from .kv_pool import KvPool, Layout
from .load import Options, memory_of

SHARE_FOR_KV = 0.5
"""Share of the free memory for the KV pool on devices whose memory is also the host's."""


def kv_bytes(options: Options, device: torch.device) -> int:
    """Returns the memory for the KV pool. On a GPU, it is the rest of this process' share of the memory."""
    if options.kv_megabytes is not None:
        return options.kv_megabytes * 10**6
    free, total = memory_of(device)
    if device.type != "cuda":
        return int(free * SHARE_FOR_KV)
    return max(0, min(free, int(total * options.memory_fraction) - torch.cuda.memory_reserved(device)))


def kv_blocks(options: Options, device: torch.device, context: int, block_size: int, bytes_per_token: int) -> int:
    """Returns the number of blocks of the pool, limited to max_sequences with `context` rows each. Exits if the
    requested context does not fit, or if no context fits.
    """
    size, block_bytes = kv_bytes(options, device), block_size * bytes_per_token
    needed = -(-context // block_size)
    blocks = min(size // block_bytes, needed * options.max_sequences)
    if group := parallel.joined():
        blocks = group.smallest(blocks)  # All ranks must evict the same blocks.
    if blocks < needed and options.context_length is not None:
        raise SystemExit(
            f"--context-length must be at most {blocks * block_size}, the number of rows that fit into "
            f"{size / 1e9:.1f} GB of memory for the KV cache, got {options.context_length}"
        )
    if blocks * block_size < 2:
        raise SystemExit(
            f"the KV cache needs at least {block_bytes / 1e6:.1f} MB of memory (1 block), got {size / 1e6:.1f} MB"
        )
    return blocks


def allocate(options: Options, layers: list[Layout], device: torch.device, context: int, block_size: int) -> KvPool:
    """Returns the KV pool for layers whose weights are on the device. Exits if the requested context does not fit."""
    bytes_per_token = sum(layer.bytes_per_token for layer in layers)
    blocks = kv_blocks(options, device, context, block_size, bytes_per_token)
    return KvPool(layers, blocks + 1, block_size, device, keep=not options.no_prefix_cache)

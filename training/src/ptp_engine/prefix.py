"""Finds blocks of the KV pool by their tokens, so that sequences with the same beginning share them."""

import hashlib
from collections import OrderedDict

import numpy as np

ROOT = b""


def digest(parent: bytes, tokens: list[int]) -> bytes:
    """Returns the digest of a block. It identifies the block's tokens and all tokens before them, because it contains
    the digest of the previous block.
    """
    return hashlib.blake2b(parent + np.array(tokens, np.uint32).tobytes(), digest_size=16).digest()


class PrefixIndex:
    """Full blocks by digest, and the order in which unused blocks are evicted."""

    def __init__(self) -> None:
        self.blocks: dict[bytes, int] = {}
        self.digests: dict[int, bytes] = {}
        self.unused: OrderedDict[int, bool] = OrderedDict()
        """Blocks of closed sequences, least recently used first. The value is true for the last block of a sequence."""
        self.lookups = 0
        self.hits = 0
        self.reused_tokens = 0

    def find(self, tokens: list[int], size: int) -> tuple[list[int], list[bytes]]:
        """Returns the blocks of the longest known prefix of `tokens` and their digests."""
        blocks: list[int] = []
        digests: list[bytes] = []
        for start in range(0, len(tokens) - size + 1, size):
            name = digest(digests[-1] if digests else ROOT, tokens[start : start + size])
            if name not in self.blocks:
                break
            blocks.append(self.blocks[name])
            digests.append(name)
        return blocks, digests

    def add(self, block: int, name: bytes) -> None:
        """Makes a full block known, unless another block has the same content."""
        if name not in self.blocks:
            self.blocks[name] = block
            self.digests[block] = name

    def forget(self, block: int) -> None:
        """Forgets a block that is about to change."""
        name = self.digests.pop(block, None)
        if name is not None:
            del self.blocks[name]

    def evict(self) -> int | None:
        """Forgets the least recently used unused block and returns it, or None if all blocks are in use."""
        if not self.unused:
            return None
        block, _ = self.unused.popitem(last=False)
        self.forget(block)
        return block

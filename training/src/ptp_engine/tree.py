"""Picks by walking down the tree over the token ids (`pickTree` in engine/src/testing/reference-sampler.ts).

Weights are integers, so their sums have no rounding errors, and no result depends on the order of additions or on other
rows. The number of operations does not depend on the number of rows: the decisions at all nodes are computed at once,
and the result is the leaf that these decisions lead to.
"""

import functools

import torch
import torch.nn.functional as F
from torch import Tensor

STAGE = 9
"""Maximum number of levels whose nodes are computed at once."""


def pick_dense(weights: Tensor, u: Tensor) -> Tensor:
    """Returns tokens [R, 1] for weights [R, V], which are integers of any type, and uniforms u [R, D]."""
    bits = block_bits(u.shape[-1])
    if bits == 0:
        return walk(weights.long(), u)
    vocabulary = weights.shape[-1]
    blocks = weights.new_zeros(len(weights), -(-vocabulary // 2**bits), 2**bits, dtype=torch.int64)
    blocks.flatten(1)[:, :vocabulary] = weights
    block = pick_dense(blocks.sum(-1), u[:, :-bits])
    inside = blocks.gather(1, block[..., None].expand(-1, -1, 2**bits))[:, 0]
    return block * 2**bits + walk(inside, u[:, -bits:])


def block_bits(depth: int) -> int:
    """Returns the binary logarithm of the block size of a tree, or 0 if the tree needs no blocks."""
    return depth // 2 if STAGE < depth <= 2 * STAGE else max(0, depth - STAGE) and STAGE


def walk(weights: Tensor, u: Tensor) -> Tensor:
    """Returns leaves [R, 1] for weights [R, S] of the first S leaves and uniforms u [R, d]."""
    depth = u.shape[-1]
    nodes = complete_tree(depth, weights.device)
    sums = F.pad(weights, (1, 2**depth - weights.shape[-1])).cumsum(-1)
    bounds = sums[:, nodes.bounds]
    right = goes_right(bounds, u[:, nodes.levels])
    return (right[:, nodes.paths] == nodes.turns).all(-1).int().argmax(-1, keepdim=True)


def goes_right(bounds: Tensor, u: Tensor) -> Tensor:
    """Returns decisions [R, N] at nodes from the sums of weights before their beginning, middle and end [R, 3, N]."""
    left, total = bounds[:, 1] - bounds[:, 0], bounds[:, 2] - bounds[:, 0]
    return (u.double() * total >= left) & (total > left)


class Nodes:
    """Inner nodes of a complete tree, level by level.

    bounds [3, N]: beginning, middle and end of each node. levels [N]: level of each node. paths and turns [2^depth,
    depth]: nodes above each leaf, and true if the leaf is to the right of the node's middle.
    """

    def __init__(self, depth: int, device: torch.device):
        starts = [(d, i << (depth - d), 1 << (depth - d)) for d in range(depth) for i in range(1 << d)]
        bounds = [[a + size * part // 2 for _, a, size in starts] for part in range(3)]
        leaf, level = torch.arange(2**depth)[:, None], torch.arange(depth)
        self.bounds = torch.tensor(bounds, device=device)
        self.levels = torch.tensor([d for d, _, _ in starts], device=device)
        self.paths = (2**level - 1 + (leaf >> (depth - level))).to(device)
        self.turns = ((leaf >> (depth - 1 - level)) & 1).bool().to(device)


complete_tree = functools.cache(Nodes)

"""Attention over key/value caches that a run extends in place.

The host passes each cache as an input that ends with room for the run's new rows, and makes the output of the new rows
a view of this room (engine/src/onnx/cache-binding.ts). The node that writes the new rows also computes the queries or
an input of the queries, so the rows are complete before any query attends to them. No run copies the earlier rows.

Float16 caches take half the memory. A run converts a layer's cache to float32 before it attends to it. The body of an
If does so, because a body starts after all its inputs are complete, the queries included.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ...model.transformer import Config, Layer
from .cache import TokenInputs, token_inputs
from .graph import CONTRIB, FLOAT, FLOAT16, Graph, Stream


@dataclass(frozen=True)
class InPlaceInputs(TokenInputs):
    """The masks [T_i * H/G, S_i] have a row for each query of a group."""

    used: list[str]
    """For each slot, a scalar that is true if the slot has tokens. Used slots come first. Empty for one slot."""

    half: bool
    """True if the caches are float16. The graph then has several slots."""


def in_place_inputs(g: Graph, config: Config, slots: int, half: bool) -> InPlaceInputs:
    """Adds `token_inputs`, and k{l}_{i} and v{l}_{i} [S_i, G, D]. Raises ValueError if a graph for one slot is to have
    float16 caches.
    """
    if half and slots == 1:
        raise ValueError("slots must be at least 2 for float16 caches, got 1")
    ids, positions, splits, masks = token_inputs(g, slots)
    for n in range(config.layers):
        for i in range(slots):
            for part in ("k", "v"):
                shape = [f"S{i}", config.kv_heads, config.head_width]
                g.input(f"{part}{n}_{i}", FLOAT16 if half else FLOAT, shape)
    return InPlaceInputs(
        ids,
        positions,
        splits,
        [by_query(g, config, mask) for mask in masks],
        [has_tokens(g, splits, i) for i in range(slots)] if splits else [],
        half,
    )


def has_tokens(g: Graph, splits: str, slot: int) -> str:
    g.node("Gather", [splits, g.constant(slot)], f"splits.{slot}")
    return g.node("Greater", [f"splits.{slot}", g.constant(0)], f"used.{slot}")


def by_query(g: Graph, config: Config, mask: str) -> str:
    """Repeats the rows of a mask [T, S] for the H/G queries that share a key."""
    group = config.heads // config.kv_heads
    if group == 1:
        return mask
    g.node("Unsqueeze", [mask, g.constant([1])], f"{mask}.apart")
    g.node("Expand", [f"{mask}.apart", g.constant([1, group, 1])], f"{mask}.repeated")
    g.node("Shape", [mask], f"{mask}.shape")
    g.node("Mul", [f"{mask}.shape", g.constant([group, 1])], f"{mask}.size")
    return g.node("Reshape", [f"{mask}.repeated", f"{mask}.size"], f"{mask}.rows", allowzero=1)


def attend_in_place(stream: Stream, layer: Layer, number: int, given: InPlaceInputs) -> str:
    """Adds a layer's outputs nk{l}_{i} and nv{l}_{i} [1, T_i, G*D], and returns its attention [1, N, H*D]."""
    g, c, name = stream.graph, stream.config, f"layer{number}"
    keys, values = ([f"n{part}{number}_{i}" for i in range(stream.slots)] for part in ("k", "v"))
    for key, value in zip(keys, values, strict=True):
        for row in (key, value):
            g.output(row, FLOAT16 if given.half else FLOAT, [1, "T", c.kv_heads * c.head_width])
    if not given.used:
        queries = stream.project(layer, name, (keys[0], values[0]))
        return attention(g, c, queries, (f"k{number}_0", f"v{number}_0"), given.masks[0])

    new = (f"{name}.k", f"{name}.v")
    joined = g.node("Concat", [stream.project(layer, name, new), *new], f"{name}.rotated", axis=2)
    width = c.kv_heads * c.head_width
    sizes = g.constant([c.heads * c.head_width, width, width])
    queries = [f"{name}.q{i}" for i in range(stream.slots)]
    if given.half:
        joined = g.node("Cast", [joined], f"{name}.rotated.half", to=FLOAT16)
    for i, part in enumerate(stream.split(joined)):
        own = f"{queries[i]}.half" if given.half else queries[i]
        g.node("Split", [part, sizes], [own, keys[i], values[i]], axis=2)
        if given.half:
            g.node("Cast", [own], queries[i], to=FLOAT)

    def slot(s: Graph, i: int) -> str:
        cache = [f"{part}{number}_{i}" for part in ("k", "v")]
        if given.half:
            cache = [s.node("Cast", [part], f"{part}.float", to=FLOAT) for part in cache]
        return attention(s, c, queries[i], cache, given.masks[i])

    def together(s: Graph) -> str:
        parts = [slot(s, 0), slot(s, 1)]
        for i in range(2, stream.slots):  # The queries of an empty slot are as empty as its attention.
            parts.append(s.choose(given.used[i], f"{name}.part{i}", lambda s, i=i: slot(s, i), queries[i], FLOAT))
        return s.node("Concat", parts, f"{name}.together", axis=1)

    return g.choose(given.used[1], f"{name}.attended", together, lambda s: slot(s, 0), FLOAT)


def attention(g: Graph, c: Config, queries: str, cache: Sequence[str], mask: str) -> str:
    """Returns the attention [1, T, H*D] of queries [1, T, H*D] to a cache: keys and values [S, G, D]. The queries of a
    group, which share their keys, are rows of one product.
    """
    group = c.heads // c.kv_heads
    g.node("Reshape", [queries, g.constant([-1, c.kv_heads, group, c.head_width])], f"{queries}.heads")
    g.node("Transpose", [f"{queries}.heads"], f"{queries}.groups", perm=[1, 0, 2, 3])
    g.node("Reshape", [f"{queries}.groups", g.constant([c.kv_heads, -1, c.head_width])], f"{queries}.rows")
    # transBatchB reads [S, G, D] as [G, S, D], without a copy.
    scale = float(np.float32(1 / np.sqrt(c.head_width)))
    keys, values = cache
    inputs = [f"{queries}.rows", keys]
    g.node("FusedMatMul", inputs, f"{queries}.scores", CONTRIB, transB=1, transBatchB=1, alpha=scale)
    g.node("Add", [f"{queries}.scores", mask], f"{queries}.masked")
    g.node("Softmax", [f"{queries}.masked"], f"{queries}.shares", axis=-1)
    inputs = [f"{queries}.shares", values]
    g.node("FusedMatMul", inputs, f"{queries}.sums", CONTRIB, transBatchB=1)
    g.node("Reshape", [f"{queries}.sums", g.constant([c.kv_heads, -1, group, c.head_width])], f"{queries}.apart")
    g.node("Transpose", [f"{queries}.apart"], f"{queries}.by_token", perm=[1, 0, 2, 3])
    return g.node("Reshape", [f"{queries}.by_token", g.constant([1, -1, c.heads * c.head_width])], f"{queries}.out")

"""The drafter as an ONNX graph: the context stream, then the u-positions, then the picks, which a sequential head makes
one position at a time.
"""

from collections.abc import Iterable

import numpy as np
from torch import nn

from ...model.drafter import Drafter
from ...model.lora import merged
from ...model.stored_target import AnyTarget
from ...model.transformer import Config, Layer
from .cache import context_inputs, context_rows, new_rows
from .draft_head import choice, head, rows, sequential, without
from .embeddings import features
from .graph import FLOAT, INT64, Graph, Stream, WeightFile, add_rope, split_input


def context_of(drafter: Drafter, target: AnyTarget) -> tuple[Config, nn.Embedding, Iterable[Layer]]:
    """Returns the sizes, the embedding and the layers of the context stream."""
    if drafter.config.kind == "separate":
        return drafter.config.sizes, drafter.embedding, drafter.layers
    return target.config, target.embedding, target.layers[: drafter.config.depth]


def drafter_graph(drafter: Drafter, target: AnyTarget, weights: WeightFile, slots: int) -> Graph:
    """Runs N packed context tokens through the context stream, and M packed u-positions through the drafter's own
    layers.

    Context inputs: ids, pos, splits, mask_{i}, pk and pv as in `target_graph`, for the context layers 0 .. max(source).
    Inputs of the u-positions (M_i >= 1 in slot i, branch after branch): u [1, M, D]; upos [1, M]; first [1, M,
    1], 1 at the first u-position of a branch; last [1, M], the token before the branch, which is used where first is 1;
    excluded [1, M], a token that a position must not pick, or -1; temperature, top_p and top_k [1, M, 1] (float, top_k
    0 for no limit); usplits [slots] (only with several slots); umask_{i} [M_i, P_i + T_i + M_i].
    A sequential head has further inputs, for all W branches of at most K positions: grid [K, W], the index in M of a
    branch's k-th position (any index if the branch has no such position); cell [M], k W + branch of each position.
    Outputs: draft [M], the tokens; confidence [M], their probabilities when picked; nk{l} and nv{l} [1, N, G*D].
    """
    depth = drafter.config.depth
    c, context_embedding, context_layers = context_of(drafter, target)
    g = Graph(weights)
    given = context_inputs(g, depth, slots, c.kv_heads * c.head_width)
    own_positions = g.input("upos", INT64, [1, "M"])
    own_splits = split_input(g, "usplits", slots)
    own_masks = [g.input(f"umask_{i}", FLOAT, [f"M{i}", f"U{i}"]) for i in range(slots)]
    last, first = g.input("last", INT64, [1, "M"]), g.input("first", FLOAT, [1, "M", 1])
    add_rope(g, c, drafter.config.length)

    x = g.gather("context.embedding", context_embedding.weight, given.ids, "embedded")
    context = Stream(g, c, x, given.positions, slots, given.splits)
    seen: list[tuple[list[list[str]], list[list[str]]]] = []
    for n, layer in enumerate(context_layers):
        name = f"context{n}"
        new = new_rows(g, n)
        if n < depth - 1:
            q = context.project(layer, name, new)
        else:
            context.project_keys(layer, name, new)
        seen.append(context_rows(context, new, given, n))
        if n < depth - 1:
            context.finish(layer, name, context.attend(q, *seen[n], given.masks))

    g.gather("embedding", drafter.embedding.weight, last, "last.embedded")
    g.node("Mul", ["last.embedded", first], "last.counted")
    g.input("u", FLOAT, [1, "M", drafter.config.coordinates])
    for name in ("temperature", "top_p", "top_k"):
        g.input(name, FLOAT, [1, "M", 1])
    x = g.node("Add", [uniform_embedding(g, drafter), "last.counted"], "u.input")
    own_layers(drafter, Stream(g, c, x, own_positions, slots, own_splits), seen, own_masks)
    tokens(g, drafter)
    g.output("draft", INT64, ["M"])
    g.output("confidence", FLOAT, ["M"])
    return g


def own_layers(drafter: Drafter, own: Stream, seen: list, masks: list[str]) -> None:
    """Runs the drafter's own layers over the u-positions and returns `final` [M, width], normalised.

    seen: `context_rows` by layer.
    """
    g = own.graph
    for j, layer in enumerate(drafter.layers):
        name = f"own{j}"
        new = (f"{name}.k", f"{name}.v")
        layer = merged(layer)
        q = own.project(layer, name, new)
        keys, values = (
            [[*of_context, mine] for of_context, mine in zip(rows, own.split(n), strict=True)]
            for rows, n in zip(seen[drafter.config.source[j]], new, strict=True)
        )
        own.finish(layer, name, own.attend(q, keys, values, masks))
    g.node("Squeeze", [own.norm("norm", drafter.norm), g.constant([0])], "final")


def uniform_embedding(g: Graph, drafter: Drafter) -> str:
    """Adds the nodes of UniformEmbedding for [1, M] positions. The inputs are u [1, M, D], and temperature, top_p,
    top_k and first, each [1, M, 1].
    """
    c, e = drafter.config, drafter.uniform
    u, temperature, top_p, top_k = "u", "temperature", "top_p", "top_k"
    zero, vocab = g.constant(0, np.float32), float(c.target.vocab)
    g.node("Greater", [top_k, zero], "top_k.on")
    g.node("Where", ["top_k.on", top_k, g.constant(vocab, np.float32)], "top_k.limit")
    g.node("Log", ["top_k.limit"], "top_k.log")
    g.node("Div", ["top_k.log", g.constant(np.log(vocab), np.float32)], "limit")
    g.node("Concat", [temperature, top_p, "limit"], "conditions", axis=2)
    conditions = g.linear("condition.weight", "conditions", e.condition.weight, "conditions.embedded")
    g.node("Greater", [temperature, zero], "random")
    if c.method == "independent":
        return conditions
    x = features(g, c.embedding, u, c.coordinates, c.frequencies)
    if e.hidden is not None:
        g.linear("hidden.weight", x, e.hidden.weight, "u.hidden.linear")
        g.node("Add", ["u.hidden.linear", g.tensor("hidden.bias", e.hidden.bias)], "u.hidden")
        x = g.node("QuickGelu", ["u.hidden"], "u.hidden.silu", "com.microsoft", alpha=1.0)
    g.linear("uniform.weight", x, e.uniform.weight, "u.linear")
    g.node("Add", ["u.linear", g.tensor("uniform.bias", e.uniform.bias)], "u.random")
    seen = g.node("Where", ["random", "u.random", g.tensor("uniform.greedy", e.greedy)], "u.embedded")
    if c.method == "c":  # The values are shifted by one position within a branch.
        g.node("Slice", [seen, g.constant([0]), g.constant([-1]), g.constant([1])], "u.but_last")
        g.node("Slice", [seen, g.constant([0]), g.constant([1]), g.constant([1])], "u.some_row")
        g.node("Concat", ["u.some_row", "u.but_last"], "u.shifted", axis=1)
        g.node("Sub", [g.constant(1, np.float32), "first"], "not_first")
        seen = g.node("Mul", ["u.shifted", "not_first"], "u.seen")
    return g.node("Add", [seen, conditions], "u.conditioned")


def tokens(g: Graph, drafter: Drafter) -> None:
    """Defines draft and confidence [M] from final [M, width]. Adds the input excluded."""
    excluded = g.input("excluded", INT64, [1, "M"])
    g.node("Reshape", [excluded, g.constant([-1, 1])], "excluded.rows")
    rows(g, drafter)
    if drafter.sequential is None:
        without(g, drafter, head(g, drafter, "final", "logits.all"), "excluded.rows", "logits")
        g.node("Div", ["logits", "divisor.rows"], "scaled")
        choice(g, drafter, "scaled", "u.rows", "random.rows", "draft", "confidence")
        return
    grid, cell = g.input("grid", INT64, ["K", "W"]), g.input("cell", INT64, ["M"])
    g.node("Squeeze", ["last", g.constant([0])], "last.flat")
    g.node("Gather", [grid, g.constant(0)], "grid.first")
    g.node("Gather", ["last.flat", "grid.first"], "token.before")
    sequential(g, drafter, "excluded.rows")
    for name, out in (("tokens", "draft"), ("confidences", "confidence")):
        g.node("Reshape", [f"grid.{name}", g.constant([-1])], f"grid.{name}.flat")
        g.node("Gather", [f"grid.{name}.flat", cell], out)

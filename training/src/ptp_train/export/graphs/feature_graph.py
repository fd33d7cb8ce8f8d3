"""A `feature` drafter as an ONNX graph.

Its context stream is the whole target, so it can predict the verdict on a block under verification: it picks a token
after each token of the block with the same uniforms, and treats the block as accepted up to the first pick that
differs. This pick is the first token of the draft, and the drafter's own layers continue from it. A single draft per
sequence therefore suffices, whereas other drafters need a draft for each position at which the block may be rejected.
"""

import numpy as np

from ...model.drafter import Drafter
from ...model.stored_target import AnyTarget
from .cache import context_inputs, context_rows, new_rows
from .draft_head import choice, head, rows, sequential
from .drafter_graph import own_layers, uniform_embedding
from .graph import FLOAT, INT64, Graph, Stream, add_rope
from .sampler import sampler
from .weight_file import WeightFile


def feature_graph(drafter: Drafter, target: AnyTarget, weights: WeightFile, slots: int) -> Graph:
    """Runs N packed context tokens of B = `slots` sequences through the target, then K tokens of each sequence through
    the drafter's layers.

    Context inputs: ids, pos, splits, mask_{i}, pk and pv as in `target_graph`.
    Inputs of the check, for blocks of at most C - 1 tokens: check_rows [B, C], the row (in the run) of the token before
    each block token, and any row of the slot beyond the block; check_tokens [B, C], the block, and -1 beyond its end;
    visible [B, 1], the index (in the sequence) of the block's first token.
    Sampling inputs: sampling.temperature, sampling.top_p, sampling.min_p (float) and sampling.top_k (0 for no limit),
    each [B, 1]; uniforms [B, C + K, D], from the block's first token on; steps [1], K >= 1.
    Outputs: accepted [B, 1], the number of block tokens that match; given [B, 1], the token after them; draft and
    confidence [B, K], the tokens after `given` and their probabilities when picked; nk{l} and nv{l} [1, N, G*D].
    """
    c = target.config
    g = Graph(weights)
    given = context_inputs(g, c.layers, slots, c.kv_heads * c.head_width)
    for name in ("check_rows", "check_tokens"):
        g.input(name, INT64, [slots, "C"])
    g.input("visible", INT64, [slots, 1])
    g.input("uniforms", FLOAT, [slots, "U", drafter.config.coordinates])
    for name, kind in (("temperature", FLOAT), ("top_k", INT64), ("top_p", FLOAT), ("min_p", FLOAT)):
        g.input(f"sampling.{name}", kind, [slots, 1])
    g.input("steps", INT64, [1])
    add_rope(g, c, drafter.config.length + 1)

    embedded = g.gather("context.embedding", target.embedding.weight, given.ids, "embedded")
    context = Stream(g, c, embedded, given.positions, slots, given.splits)
    seen = []
    for n, layer in enumerate(target.layers):
        new = new_rows(g, n)
        q = context.project(layer, f"context{n}", new)
        seen.append(context_rows(context, new, given, n))
        attended = context.attend(q, *seen[n], given.masks)
        if n == c.layers - 1:  # From here on, compute only the checked rows.
            g.node("Reshape", ["check_rows", g.constant([-1])], "check.rows")
            attended = g.node("Gather", [attended, "check.rows"], "attended.rows", axis=1)
            context.x = g.node("Gather", [context.x, "check.rows"], "x.rows", axis=1)
        context.finish(layer, f"context{n}", attended)
    g.node("Squeeze", [context.norm("context.norm", target.norm), g.constant([0])], "features")
    check(g, drafter, target)
    positions_after(g, drafter, slots, c.width)

    own_splits = None
    if slots > 1:
        own_splits = g.node("Expand", ["steps", g.constant([slots])], "own.splits")
    x = g.node("Add", [uniform_embedding(g, drafter), "before.counted"], "u.input")
    own = Stream(g, c, x, "own.positions", slots, own_splits)
    own_layers(drafter, own, seen, [own_mask(g, i, mask) for i, mask in enumerate(given.masks)])
    tokens(g, drafter, slots)
    g.output("accepted", INT64, [slots, 1])
    g.output("given", INT64, [slots, 1])
    g.output("draft", INT64, [slots, "K"])
    g.output("confidence", FLOAT, [slots, "K"])
    return g


def check(g: Graph, drafter: Drafter, target: AnyTarget) -> None:
    """Defines accepted and given [B, 1], and feature [B, width], from features [B C, width], the normalised hidden
    states.
    """
    c = target.config
    g.head("context.embedding" if c.tied else "context.output", "features", target.head_weight, "check.logits")
    g.node("Shape", ["check_rows"], "check.shape")
    g.node("Shape", ["check_rows"], "check.width", start=1, end=2)
    values = {"check.logits": "check.logits"}
    for name in ("temperature", "top_k", "top_p", "min_p"):
        g.node("Expand", [f"sampling.{name}", "check.shape"], f"check.{name}.wide")
        values[name] = g.node("Reshape", [f"check.{name}.wide", g.constant([-1, 1])], f"check.{name}")
    g.node("Slice", ["uniforms", g.constant([0]), "check.width", g.constant([1])], "check.u.wide")
    shape = g.constant([-1, drafter.config.coordinates])
    values["u"] = g.node("Reshape", ["check.u.wide", shape], "check.u")
    inner = Graph(g.weights, g)
    sampler(inner, "check.logits", c.vocab, drafter.config.pick)
    g.include(inner, "check.sampler.", values)
    g.node("Reshape", ["check.sampler.pick", "check.shape"], "check.picks")
    g.node("Equal", ["check.picks", "check_tokens"], "check.same")
    g.node("Not", ["check.same"], "check.other")
    g.node("Cast", ["check.other"], "check.differs", to=FLOAT)
    # The index of the first difference. The row after the block always differs.
    g.node("ArgMax", ["check.differs"], "accepted", axis=1, keepdims=1)
    g.node("GatherElements", ["check.picks", "accepted"], "given", axis=1)
    g.node("Unsqueeze", ["accepted", g.constant([2])], "accepted.index")
    g.node("Concat", ["check.shape", g.constant([c.width])], "features.shape", axis=0)
    g.node("Reshape", ["features", "features.shape"], "features.wide")
    g.node("GatherND", ["features.wide", "accepted.index"], "feature.column", batch_dims=1)
    g.node("Reshape", ["feature.column", g.constant([-1, c.width])], "feature")


def positions_after(g: Graph, drafter: Drafter, slots: int, width: int) -> None:
    """Defines the inputs of the drafter's layers at M = B K positions.

    The inputs are u, temperature, top_p, top_k, first and before.counted [1, M, *]; own.positions [1, M]; own.causal
    [K, K], the mask of the positions among themselves; k [K] and k.column [K, 1] with values 0 .. K - 1; and seen.end
    [B, 1], the number of valid context tokens.
    """
    one = g.constant([1])
    g.node("Squeeze", ["steps"], "steps.count")
    g.node("Range", [g.constant(0), "steps.count", g.constant(1)], "k")
    g.node("Unsqueeze", ["k", one], "k.column")
    g.node("LessOrEqual", ["k", "k.column"], "k.before")
    zero, never = g.constant(0, np.float32), g.constant(-np.inf, np.float32)
    g.node("Where", ["k.before", zero, never], "own.causal")
    g.node("Add", ["visible", "accepted"], "seen.end")
    g.node("Add", ["seen.end", "k"], "own.positions.wide")
    g.node("Reshape", ["own.positions.wide", g.constant([1, -1])], "own.positions")
    g.node("Shape", ["own.positions.wide"], "own.shape")

    g.node("Add", ["accepted", one], "own.u.start")
    g.node("Add", ["own.u.start", "k"], "own.u.places")
    g.node("Unsqueeze", ["own.u.places", g.constant([2])], "own.u.index")
    g.node("GatherND", ["uniforms", "own.u.index"], "own.u", batch_dims=1)
    g.node("Reshape", ["own.u", g.constant([1, -1, drafter.config.coordinates])], "u")
    for name in ("temperature", "top_p", "top_k"):
        value = f"sampling.{name}"
        if name == "top_k":
            value = g.node("Cast", [value], "sampling.top_k.float", to=FLOAT)
        g.node("Expand", [value, "own.shape"], f"{name}.wide")
        g.node("Reshape", [f"{name}.wide", g.constant([1, -1, 1])], name)
    g.node("Equal", ["k", g.constant(0)], "k.first")
    g.node("Cast", ["k.first"], "k.first.float", to=FLOAT)
    g.node("Expand", ["k.first.float", "own.shape"], "first.wide")
    g.node("Reshape", ["first.wide", g.constant([1, -1, 1])], "first")

    g.gather("embedding", drafter.embedding.weight, "given", "given.embedded")
    projected = g.linear("feature.weight", "feature", drafter.feature.weight, "feature.projected")
    g.node("Unsqueeze", [projected, one], "feature.row")
    g.node("Add", ["given.embedded", "feature.row"], "before")
    g.node("Concat", ["own.shape", g.constant([width])], "before.shape", axis=0)
    g.node("Expand", ["before", "before.shape"], "before.wide")
    g.node("Reshape", ["before.wide", g.constant([1, -1, width])], "before.flat")
    g.node("Mul", ["before.flat", "first"], "before.counted")


def own_mask(g: Graph, slot: int, context_mask: str) -> str:
    """Returns the mask [K, S + K] of a slot. A position attends to the valid tokens among S context tokens, and to the
    draft up to itself.
    """
    name = f"own.mask{slot}"
    zero, never = g.constant(0, np.float32), g.constant(-np.inf, np.float32)
    g.node("Shape", [context_mask], f"{name}.size", start=1, end=2)
    g.node("Squeeze", [f"{name}.size"], f"{name}.count")
    g.node("Range", [g.constant(0), f"{name}.count", g.constant(1)], f"{name}.index")
    g.node("Gather", ["seen.end", g.constant([slot])], f"{name}.end")
    g.node("Less", [f"{name}.index", f"{name}.end"], f"{name}.holds")
    g.node("Where", [f"{name}.holds", zero, never], f"{name}.row")
    g.node("Concat", ["steps", f"{name}.size"], f"{name}.shape", axis=0)
    g.node("Expand", [f"{name}.row", f"{name}.shape"], f"{name}.context")
    return g.node("Concat", [f"{name}.context", "own.causal"], name, axis=1)


def tokens(g: Graph, drafter: Drafter, slots: int) -> None:
    """Defines draft and confidence [B, K] from final [M, width]."""
    rows(g, drafter)
    if drafter.sequential is None:
        head(g, drafter, "final", "logits")
        g.node("Div", ["logits", "divisor.rows"], "scaled")
        choice(g, drafter, "scaled", "u.rows", "random.rows", "draft.flat", "confidence.flat")
        for name in ("draft", "confidence"):
            g.node("Reshape", [f"{name}.flat", "own.shape"], name)
        return
    g.node("Mul", [g.constant([list(range(slots))]), "steps"], "grid.starts")
    g.node("Add", ["k.column", "grid.starts"], "grid")
    g.node("Reshape", ["given", g.constant([-1])], "token.before")
    sequential(g, drafter, None)
    for name, out in (("tokens", "draft"), ("confidences", "confidence")):
        g.node("Transpose", [f"grid.{name}"], out, perm=[1, 0])

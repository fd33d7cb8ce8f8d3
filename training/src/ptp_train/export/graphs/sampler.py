"""The sampler as ONNX nodes: temperature, min-p, top-k, top-p, then Pick (pick.py). The rules are the same as in
engine/src/sampling.

Each row takes one of three paths. Only the row's own parameters and logits decide which one, so that its result does
not depend on its batch. Paths that no row takes are skipped:

- neither top-k nor top-p: keep everything;
- near: all kept tokens are among the NEAREST most probable ones, so only these are sorted;
- far: sort top_k tokens, or the whole vocabulary without top-k.
"""

import numpy as np

from ...model.coordinates import dimensions
from .adjust import min_p
from .graph import BOOL, FLOAT, INT64, Graph
from .pick import pick

NEAREST = 64


def any_of(g: Graph, rows: str, out: str) -> str:
    """Returns a scalar that is true if any of `rows` [R, 1] (bool) is true."""
    g.node("Cast", [rows], f"{out}.int", to=INT64)
    g.node("ReduceMax", [f"{out}.int"], f"{out}.max", keepdims=0)
    return g.node("Cast", [f"{out}.max"], out, to=BOOL)


def weigh(g: Graph, logits: str) -> str:
    """Returns the weights [R, V] of logits, relative to the highest weight. Adds the input temperature [R, 1]."""
    temperature = g.input("temperature", FLOAT, ["R", 1])
    g.node("LessOrEqual", [temperature, g.constant(0, np.float32)], "greedy")
    g.node("Not", ["greedy"], "random")
    g.node("Where", ["greedy", g.constant(1, np.float32), temperature], "divisor")
    g.node("Div", [logits, "divisor"], "scaled")
    g.node("ReduceMax", ["scaled", g.constant([1])], "scaled.max", keepdims=1)
    g.node("Sub", ["scaled", "scaled.max"], "scaled.below")
    return g.node("Exp", ["scaled.below"], "weights.all")


def limits(g: Graph, top_k: str, top_p: str, vocab: int) -> str:
    """Defines the limits that `keep` applies, and returns the rows [R, 1] with neither top-k nor top-p."""
    kind = np.float32 if g.on_gpu else np.int64
    g.node("LessOrEqual", [top_k, g.constant(0, kind)], "top_k.off")
    g.node("Where", ["top_k.off", g.constant(vocab, kind), top_k], "top_k.limit")
    g.node("GreaterOrEqual", [top_p, g.constant(1, np.float32)], "top_p.off")
    # Infinity, so that rounding cuts nothing if top_p = 1.
    g.node("Where", ["top_p.off", g.constant(np.inf, np.float32), top_p], "top_p.limit")
    return g.node("And", ["top_k.off", "top_p.off"], "unlimited")


def most_probable(g: Graph, count: str, out: str) -> str:
    """Returns the weights [R, K] of the K most probable tokens, by rank. count: K, [1]. Defines {out}.ids."""
    g.node("TopK", ["scaled", count], [f"{out}.scaled", f"{out}.ids"], axis=1)
    g.node("Sub", [f"{out}.scaled", "scaled.max"], f"{out}.below")
    g.node("Exp", [f"{out}.below"], f"{out}.all")
    return min_p(g, f"{out}.all", f"{out}.weights")


def keep(g: Graph, weights: str, rank: str, out: str) -> str:
    """Returns ranked weights [R, K]. Weights outside top-k and top-p are set to 0. rank: the numbers 0 .. K - 1."""
    zero = g.constant(0, np.float32)
    g.node("Less", [rank, "top_k.limit"], f"{out}.inside")
    g.node("Where", [f"{out}.inside", weights, zero], f"{out}.top")
    g.node("CumSum", [f"{out}.top", g.constant(1)], f"{out}.sum")
    g.node("CumSum", [f"{out}.top", g.constant(1)], f"{out}.above", exclusive=1)
    g.node("Gather", [f"{out}.sum", g.constant([-1])], f"{out}.reached", axis=1)
    g.node("Where", ["top_k.off", "weights.sum", f"{out}.reached"], f"{out}.whole")
    g.node("Mul", [f"{out}.whole", "top_p.limit"], f"{out}.mass")
    g.node("Less", [f"{out}.above", f"{out}.mass"], f"{out}.nucleus")
    return g.node("Where", [f"{out}.nucleus", f"{out}.top", zero], out)


def ranks(g: Graph, size: str, out: str) -> str:
    """Returns the numbers 0 .. size - 1."""
    return g.node("Range", [g.constant(0), size, g.constant(1)], out)


def sampler(g: Graph, logits: str, vocab: int, kind: str) -> str:
    """Defines `pick` [R], the tokens picked from logits [R, V] by the rule `kind`.

    Adds the inputs temperature, top_k, top_p and min_p [R, 1], and u [R, D].
    """
    weights = weigh(g, logits)
    top_k = g.input("top_k", INT64, ["R", 1])
    top_p = g.input("top_p", FLOAT, ["R", 1])
    g.input("u", FLOAT, ["R", dimensions(kind, vocab)])
    g.node("Greater", [g.input("min_p", FLOAT, ["R", 1]), g.constant(0, np.float32)], "min_p.on")
    any_min_p = any_of(g, "min_p.on", "any_min_p")
    cut = g.choose(any_min_p, "with_min_p", lambda s: min_p(s, weights, "weights.likely"), weights, FLOAT)
    g.node("Identity", [cut], "weights")

    g.node("Not", [limits(g, top_k, top_p, vocab)], "limited.any_temperature")
    g.node("And", ["limited.any_temperature", "random"], "limited")

    best = g.node("ArgMax", [logits], "best", axis=1, keepdims=1)
    kept = g.choose(
        any_of(g, "limited", "any_limited"),
        "with_limited",
        lambda s: s.node("Where", ["limited", limited_weights(s, vocab), "weights"], "limited.weights"),
        "weights",
        FLOAT,
    )
    token = g.choose(
        any_of(g, "random", "any_random"),
        "with_random",
        lambda s: s.node("Where", ["random", pick(s, kind, kept, "u", vocab, "picked"), best], "random.chosen"),
        best,
    )
    return g.node("Squeeze", [token, g.constant([1])], "pick")


def limited_weights(g: Graph, vocab: int) -> str:
    """Returns weights [R, V]. Weights outside top-k and top-p are set to 0. Valid for rows with at least one of the two
    limits.
    """
    nearest = min(NEAREST, vocab)
    g.node("ReduceSum", ["weights", g.constant([1])], "weights.sum", keepdims=1)
    weights = most_probable(g, g.constant([nearest]), "near")
    kept = keep(g, weights, ranks(g, g.constant(nearest), "near.kept.rank"), "near.kept")
    g.node("Mul", ["weights", g.constant(0, np.float32)], "zeros")
    near = g.node("ScatterElements", ["zeros", "near.ids", kept], "near", axis=1)
    if nearest == vocab:
        return near

    g.node("LessOrEqual", ["top_k.limit", g.constant(nearest)], "near.by_top_k")
    g.node("GreaterOrEqual", ["near.kept.reached", "near.kept.mass"], "near.covers")
    g.node("And", ["near.covers", "top_k.off"], "near.by_top_p")
    g.node("Or", ["near.by_top_k", "near.by_top_p"], "near.enough")
    g.node("Not", ["near.enough"], "near.short")
    g.node("And", ["near.short", "limited"], "far")

    def far(s: Graph) -> str:
        # The largest top_k of the far rows. `keep` applies the top_k of each row.
        s.node("Where", ["far", "top_k.limit", s.constant(1)], "far.limit")
        s.node("ReduceMax", ["far.limit"], "far.size", keepdims=0)
        s.node("Unsqueeze", ["far.size", s.constant([0])], "far.sizes")
        weights = most_probable(s, "far.sizes", "far")
        kept = keep(s, weights, ranks(s, "far.size", "far.kept.rank"), "far.kept")
        s.node("ScatterElements", ["zeros", "far.ids", kept], "far.in_place", axis=1)
        return s.node("Where", ["far", "far.in_place", near], "far.chosen")

    return g.choose(any_of(g, "far", "any_far"), "with_far", far, near, FLOAT)

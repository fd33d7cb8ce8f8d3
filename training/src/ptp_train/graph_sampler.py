"""The sampler as ONNX nodes: temperature, top-k, top-p and Pick with given uniforms, the rules of core/src/sampling.

Each row's token is computed in one of four ways, by its own parameters and logits alone, so that it doesn't depend on what else
is in the run; the ways that no row needs are skipped:

- greedy (temperature 0): the highest logit;
- free (top_k 0, top_p 1): running sum over the vocabulary;
- near: what is kept surely lies within the NEAREST most probable tokens, so only these are sorted;
- far: as many are sorted as top_k says, the whole vocabulary without it.
"""

import numpy as np

from .graph import BOOL, FLOAT, INT64, Graph

NEAREST = 64


def any_of(g: Graph, rows: str, out: str) -> str:
    """Scalar: does `rows` [R, 1] (bool) hold anywhere?"""
    g.node("Cast", [rows], f"{out}.int", to=INT64)
    g.node("ReduceMax", [f"{out}.int"], f"{out}.max", keepdims=0)
    return g.node("Cast", [f"{out}.max"], out, to=BOOL)


def first_above(g: Graph, weights: str, out: str) -> str:
    """Pick's index [R, 1] into weights [R, W]: the first whose running sum F exceeds u Z, Z being the sum of all.

    As u <= 1 - 2^-24 and Z >= 1, u Z < Z in float32, so there always is one.
    """
    # Running sums go down the columns: onnxruntime's CumSum is several times faster there.
    g.node("Transpose", [weights], f"{out}.columns", perm=[1, 0])
    g.node("CumSum", [f"{out}.columns", g.constant(0)], f"{out}.F")
    g.node("Gather", [f"{out}.F", g.constant([-1])], f"{out}.Z", axis=0)
    g.node("Mul", [f"{out}.Z", "u.row"], f"{out}.uZ")
    g.node("LessOrEqual", [f"{out}.F", f"{out}.uZ"], f"{out}.below")
    g.node("Cast", [f"{out}.below"], f"{out}.ones", to=FLOAT)
    g.node("ReduceSum", [f"{out}.ones", g.constant([0])], f"{out}.count", keepdims=0)
    g.node("Unsqueeze", [f"{out}.count", g.constant([1])], f"{out}.column")
    return g.node("Cast", [f"{out}.column"], out, to=INT64)


def keep(g: Graph, weights: str, size: str, out: str) -> str:
    """Weights [R, size], ranked, with those outside top-k and top-p set to 0.

    Beside the result it leaves `{out}.mass`, what top-p asks for, and `{out}.reached`, the sum before top-p cuts.
    """
    zero = g.constant(0, np.float32)
    rank = g.node("Range", [g.constant(0), size, g.constant(1)], f"{out}.rank")
    g.node("Less", [rank, "top_k.limit"], f"{out}.inside")
    g.node("Where", [f"{out}.inside", weights, zero], f"{out}.top")
    g.node("CumSum", [f"{out}.top", g.constant(1)], f"{out}.sum")
    g.node("CumSum", [f"{out}.top", g.constant(1)], f"{out}.above", exclusive=1)
    g.node("Gather", [f"{out}.sum", g.constant([-1])], f"{out}.reached", axis=1)
    g.node("Where", ["top_k.off", "weights.sum", f"{out}.reached"], f"{out}.whole")
    g.node("Mul", [f"{out}.whole", "top_p.limit"], f"{out}.mass")
    g.node("Less", [f"{out}.above", f"{out}.mass"], f"{out}.nucleus")
    return g.node("Where", [f"{out}.nucleus", f"{out}.top", zero], out)


def sampler(g: Graph, logits: str, vocab: int) -> str:
    """The value `pick` [R], tokens picked from logits [R, V]; adds the inputs temperature, top_k, top_p [R, 1] and u [R, 1]."""
    temperature = g.input("temperature", FLOAT, ["R", 1])
    top_k = g.input("top_k", INT64, ["R", 1])
    top_p = g.input("top_p", FLOAT, ["R", 1])
    g.input("u", FLOAT, ["R", 1])
    g.node("Transpose", ["u"], "u.row", perm=[1, 0])
    zero, one = g.constant(0, np.float32), g.constant(1, np.float32)

    g.node("LessOrEqual", [temperature, zero], "greedy")
    g.node("Not", ["greedy"], "random")
    g.node("Where", ["greedy", one, temperature], "divisor")
    g.node("Div", [logits, "divisor"], "scaled")
    g.node("ReduceMax", ["scaled", g.constant([1])], "scaled.max", keepdims=1)
    g.node("Sub", ["scaled", "scaled.max"], "scaled.below")
    g.node("Exp", ["scaled.below"], "weights")

    g.node("LessOrEqual", [top_k, g.constant(0)], "top_k.off")
    g.node("Where", ["top_k.off", g.constant(vocab), top_k], "top_k.limit")
    g.node("GreaterOrEqual", [top_p, one], "top_p.off")
    # With top_p 1 nothing is cut, however the sums round.
    g.node("Where", ["top_p.off", g.constant(np.inf, np.float32), top_p], "top_p.limit")
    g.node("And", ["top_k.off", "top_p.off"], "unlimited")
    g.node("And", ["unlimited", "random"], "free")
    g.node("Not", ["unlimited"], "limited.any_temperature")
    g.node("And", ["limited.any_temperature", "random"], "limited")

    best = g.node("ArgMax", [logits], "best", axis=1, keepdims=1)
    freely = g.choose(
        any_of(g, "free", "any_free"),
        "with_free",
        lambda s: s.node("Where", ["free", first_above(s, "weights", "free.token"), best], "free.chosen"),
        best,
    )
    token = g.choose(
        any_of(g, "limited", "any_limited"),
        "with_limited",
        lambda s: s.node("Where", ["limited", ranked(s, vocab), freely], "limited.chosen"),
        freely,
    )
    return g.node("Squeeze", [token, g.constant([1])], "pick")


def ranked(g: Graph, vocab: int) -> str:
    """Tokens [R, 1] of rows with top-k or top-p."""
    nearest = min(NEAREST, vocab)
    g.node("ReduceSum", ["weights", g.constant([1])], "weights.sum", keepdims=1)
    g.node("TopK", ["scaled", g.constant([nearest])], ["near.scaled", "near.ids"], axis=1)
    g.node("Sub", ["near.scaled", "scaled.max"], "near.below")
    g.node("Exp", ["near.below"], "near.weights")
    kept = keep(g, "near.weights", g.constant(nearest), "near.kept")
    g.node("TopK", ["near.ids", g.constant([nearest])], ["near.sorted", "near.order"], axis=1, largest=0)
    g.node("GatherElements", [kept, "near.order"], "near.in_order", axis=1)
    g.node("GatherElements", ["near.sorted", first_above(g, "near.in_order", "near.index")], "near.token", axis=1)
    if nearest == vocab:
        return "near.token"

    g.node("LessOrEqual", ["top_k.limit", g.constant(nearest)], "near.by_top_k")
    g.node("GreaterOrEqual", ["near.kept.reached", "near.kept.mass"], "near.covers")
    g.node("And", ["near.covers", "top_k.off"], "near.by_top_p")
    g.node("Or", ["near.by_top_k", "near.by_top_p"], "near.enough")
    g.node("Not", ["near.enough"], "far.wanted")
    g.node("And", ["far.wanted", "limited"], "far")

    def far(s: Graph) -> str:
        # As many as the far rows' top_k asks for; what is ranked below a row's own top_k doesn't count for it.
        s.node("Where", ["far", "top_k.limit", s.constant(1)], "far.limit")
        s.node("ReduceMax", ["far.limit"], "far.size", keepdims=0)
        s.node("Unsqueeze", ["far.size", s.constant([0])], "far.sizes")
        s.node("TopK", ["scaled", "far.sizes"], ["far.scaled", "far.ids"], axis=1)
        s.node("Sub", ["far.scaled", "scaled.max"], "far.below")
        s.node("Exp", ["far.below"], "far.weights")
        kept = keep(s, "far.weights", "far.size", "far.kept")
        s.node("Mul", ["weights", s.constant(0, np.float32)], "far.zeros")
        s.node("ScatterElements", ["far.zeros", "far.ids", kept], "far.in_order", axis=1)
        return s.node("Where", ["far", first_above(s, "far.in_order", "far.token"), "near.token"], "far.chosen")

    return g.choose(any_of(g, "far", "any_far"), "with_far", far, "near.token")

"""model/draft_head.py as ONNX nodes: logits of the u-positions, and picks, which a sequential head makes one position at
a time. S is the number of tokens that the drafter may propose, which is V without a shortlist.
"""

import numpy as np
from onnx import helper
from torch import Tensor

from ...model.drafter import Drafter
from ...model.transformer import EPSILON
from .graph import FLOAT, INT64, Graph
from .int8 import quantise_channels
from .pick import pick, pick_listed
from .sampler import any_of


def rows(g: Graph, drafter: Drafter) -> None:
    """Defines {u, temperature, random, divisor}.rows of the M positions, from values of `uniform_embedding`."""
    one = g.constant(1, np.float32)
    for name in ("u", "temperature", "random"):
        g.node("Squeeze", [name, g.constant([0])], f"{name}.rows")
    if drafter.config.method == "o":
        g.node("Identity", [one], "divisor.rows")
    else:
        g.node("Where", ["random.rows", "temperature.rows", one], "divisor.rows")


def sequential(g: Graph, drafter: Drafter, excluded: str | None) -> None:
    """Defines grid.tokens and grid.confidences [K, W], position by position, from final [M, width], grid [K, W] and
    token.before [W].
    """
    own = drafter.sequential
    g.linear("head.from_hidden", "final", own.from_hidden.weight, "head.hidden", own.from_hidden.bias)
    if drafter.config.factored:
        head(g, drafter, "final", "head.uncorrected")
        # No node uses this matrix, but `restore` reads it.
        g.store("head.out", own.out.weight)
    g.node("Shape", ["grid"], "grid.steps", start=0, end=1)
    g.node("Squeeze", ["grid.steps"], "grid.count")
    g.node("Shape", ["grid"], "grid.width", start=1, end=2)
    g.node("Concat", ["grid.width", g.constant([drafter.config.rank])], "state.shape", axis=0)
    g.node("Expand", [g.constant(0, np.float32), "state.shape"], "state.before")
    body = step(g, drafter, excluded)
    outputs = ["token.last", "state.last", "grid.tokens", "grid.confidences"]
    g.node("Loop", ["grid.count", g.constant(True, np.bool_), "token.before", "state.before"], outputs, body=body)


def step(parent: Graph, drafter: Drafter, excluded: str | None):
    """Builds the body of the loop. It computes the k-th position of every branch from the previous token and state."""
    s, c, own = Graph(parent.weights, parent), drafter.config.sizes, drafter.sequential
    s.node("Gather", ["grid", "k"], "step.rows")
    start = "head.uncorrected" if drafter.config.factored else "final"
    names = ["head.hidden", start, "divisor.rows", "u.rows", "random.rows", *([excluded] if excluded else [])]
    for name in names:
        whole = name == "divisor.rows" and drafter.config.method == "o"
        s.node("Identity", [name], f"step.{name}") if whole else s.node("Gather", [name, "step.rows"], f"step.{name}")
    s.gather("embedding", drafter.embedding.weight, "token.in", "step.token")
    unit(s, "step.token", c.width)
    unit(s, "state.in", drafter.config.rank)
    s.linear("head.from_token", "step.token.unit", own.from_token.weight, "step.from_token")
    s.linear("head.from_state", "state.in.unit", own.from_state.weight, "step.from_state")
    s.node("Sum", ["step.head.hidden", "step.from_token", "step.from_state"], "step.z")
    s.node("Split", ["step.z"], ["step.gate", "step.up"], axis=1, num_outputs=2)
    s.node("QuickGelu", ["step.gate"], "step.silu", "com.microsoft", alpha=1.0)
    s.node("Mul", ["step.silu", "step.up"], "state.out")
    if drafter.config.factored:
        s.linear("head.correction", "state.out", corrections(s, drafter), "step.correction")
        s.node("Add", ["step.head.uncorrected", "step.correction"], "step.logits.all")
    else:
        s.linear("head.out", "state.out", own.out.weight, "step.correction")
        s.node("Add", ["step.final", "step.correction"], "step.corrected")
        head(s, drafter, "step.corrected", "step.logits.all")
    without(s, drafter, "step.logits.all", f"step.{excluded}" if excluded else None, "step.logits")
    s.node("Div", ["step.logits", "step.divisor.rows"], "step.scaled")
    choice(s, drafter, "step.scaled", "step.u.rows", "step.random.rows", "token.out", "step.confidence")
    s.node("Identity", ["token.out"], "step.token.out")
    s.node("Identity", ["go.in"], "go.out")
    rank = drafter.config.rank
    info = helper.make_tensor_value_info
    inputs = [info("k", INT64, []), info("go.in", helper.np_dtype_to_tensor_dtype(np.dtype(bool)), [])]
    inputs += [info("token.in", INT64, ["W"]), info("state.in", FLOAT, ["W", rank])]
    outputs = [info("go.out", helper.np_dtype_to_tensor_dtype(np.dtype(bool)), []), info("token.out", INT64, ["W"])]
    outputs += [info("state.out", FLOAT, ["W", rank])]
    outputs += [info("step.token.out", INT64, ["W"]), info("step.confidence", FLOAT, ["W"])]
    return helper.make_graph(s.nodes, "step", inputs, outputs)


def corrections(g: Graph, drafter: Drafter) -> Tensor:
    """Returns the product [S, R] of output head and `head.out`, each rounded as it is stored, so that a restored drafter
    has the same product.
    """
    head = drafter.head_weight
    if drafter.output is None:  # A restored drafter has the embedding.
        head = as_stored(g, head)
    return rounded(g, head) @ rounded(g, drafter.sequential.out.weight)


def rounded(g: Graph, weight: Tensor) -> Tensor:
    if not g.integer_form(weight):
        return as_stored(g, weight)
    values, scale = quantise_channels(weight)
    return values.float() * scale[:, None]


def as_stored(g: Graph, weight: Tensor) -> Tensor:
    return weight.to(g.weights.storage_type("a factor of head.correction", weight)).float()


def unit(g: Graph, x: str, width: int) -> None:
    """Defines x.unit, in which each row of x [R, width] is divided by its root mean square (`sequential_head.unit`)."""
    inputs = [x, g.constant([1.0] * width, np.float32)]
    g.node("SimplifiedLayerNormalization", inputs, f"{x}.unit", axis=-1, epsilon=EPSILON, stash_type=1)


def head(g: Graph, drafter: Drafter, x: str, out: str) -> str:
    """Adds the output head, from x [R, width] to logits [R, S]."""
    return g.head("embedding" if drafter.output is None else "output", x, drafter.head_weight, out)


def without(g: Graph, drafter: Drafter, logits: str, excluded: str | None, out: str) -> str:
    """Sets the logit of the token `excluded` [R, 1] to minus infinity, unless `excluded` is None or -1."""
    if not excluded:
        return g.node("Identity", [logits], out)
    count = drafter.config.sizes.vocab
    ids = g.named("vocabulary", np.arange(count)) if drafter.shortlist is None else listed(g, drafter)
    g.node("GreaterOrEqual", [excluded, g.constant(0)], f"{out}.some")

    def cut(s: Graph) -> str:
        s.node("Equal", [excluded, ids], f"{out}.none")
        return s.node("Where", [f"{out}.none", s.constant(-np.inf, np.float32), logits], f"{out}.cut")

    return g.choose(any_of(g, f"{out}.some", f"{out}.any"), out, cut, logits, FLOAT)


def listed(g: Graph, drafter: Drafter) -> str:
    """Returns the ids [S] of the drafter's shortlist as a constant."""
    return g.named("shortlist", drafter.shortlist.numpy())


def choice(g: Graph, drafter: Drafter, logits: str, u: str, random: str, token: str, confidence: str) -> None:
    """Defines `token` [R] and `confidence` [R], the picks from logits [R, S] and their probabilities, as in
    `DraftHead.choose`.
    """
    c, p = drafter.config, f"{token}.probabilities"
    g.node("Softmax", [logits], p, axis=1)

    def best(s: Graph) -> str:
        return s.node("ArgMax", [logits], f"{token}.best", axis=1, keepdims=1)

    def walked(s: Graph) -> str:
        name = f"{token}.picked"
        if drafter.shortlist is None:
            return pick(s, c.pick, p, u, c.target.vocab, name)
        return pick_listed(s, c.pick, p, u, drafter.shortlist.numpy(), c.target.vocab, name)

    def mixed(s: Graph) -> str:
        return s.node("Where", [random, walked(s), best(s)], f"{token}.mixed")

    if c.method == "o":
        place = best(g)
    else:
        g.node("Not", [random], f"{token}.greedy")
        any_greedy = any_of(g, f"{token}.greedy", f"{token}.any_greedy")
        any_random = any_of(g, random, f"{token}.any_random")
        place = g.choose(
            any_greedy, f"{token}.place", lambda s: s.choose(any_random, f"{token}.some", mixed, best), walked
        )
    g.node("GatherElements", [p, place], f"{token}.probability", axis=1)
    g.node("Squeeze", [f"{token}.probability", g.constant([1])], confidence)
    chosen = place if drafter.shortlist is None else g.node("Gather", [listed(g, drafter), place], f"{token}.listed")
    g.node("Squeeze", [chosen, g.constant([1])], token)

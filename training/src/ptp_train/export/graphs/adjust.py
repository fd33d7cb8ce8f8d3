"""Token adjustments as ONNX nodes: biases, penalties, forbidden tokens, min-p, and the most probable tokens.

The host computes one scale and one bias per row and token (engine/src/sampling/adjust.ts), because they depend only on
token ids. Runs without adjustments skip the nodes.
"""

import numpy as np

from .graph import FLOAT, INT64, Graph


def adjusted(g: Graph, logits: str, vocab: int) -> str:
    """Returns logits [R, V] adjusted by the inputs `scale` and `bias`. Each input is [R, V], or [0, V] if no row needs
    it.

    Positive logits are divided by their scale, and negative logits are multiplied by it (Keskar et al. 2019, arXiv
    1909.05858, section 4.1, with the sign rule of Hugging Face and vLLM). Then the bias is added. Scale 1 and bias 0
    leave every bit unchanged.
    """
    scale, bias = (g.input(name, FLOAT, [f"{name}.rows", vocab]) for name in ("scale", "bias"))

    after = g.choose(filled(g, scale), "with_scale", lambda s: scaled(s, logits, scale), logits, FLOAT)
    return g.choose(filled(g, bias), "with_bias", lambda s: s.node("Add", [after, bias], "bias.done"), after, FLOAT)


def scaled(g: Graph, logits: str, scale: str) -> str:
    """Returns positive logits divided by their scale, and negative logits multiplied by it."""
    g.node("Greater", [logits, g.constant(0, np.float32)], "scale.positive")
    g.node("Div", [logits, scale], "scale.divided")
    g.node("Mul", [logits, scale], "scale.multiplied")
    return g.node("Where", ["scale.positive", "scale.divided", "scale.multiplied"], "scale.done")


def filled(g: Graph, rows: str) -> str:
    """Returns a scalar that is true if `rows` [A, V] has A > 0."""
    g.node("Shape", [rows], f"{rows}.count", start=0, end=1)
    g.node("Squeeze", [f"{rows}.count"], f"{rows}.scalar")
    return g.node("Greater", [f"{rows}.scalar", g.constant(0)], f"{rows}.given")


def nearest(g: Graph, log_probabilities: str) -> None:
    """Adds the input top_count [1] = K, which may be 0, and the outputs top_id and top_logprob [R, K], the most
    probable tokens.
    """
    count = g.input("top_count", INT64, [1])
    g.node("TopK", [log_probabilities, count], ["top_logprob", "top_id"], axis=1)
    g.output("top_logprob", FLOAT, ["R", "K"])
    g.output("top_id", INT64, ["R", "K"])


def min_p(g: Graph, weights: str, out: str) -> str:
    """Returns weights [R, *], which are relative to the highest weight. Weights below the input min_p [R, 1] are set to
    0 (Nguyen et al. 2024, arXiv 2407.01082).
    """
    g.node("Less", [weights, "min_p"], f"{out}.cut")
    return g.node("Where", [f"{out}.cut", g.constant(0, np.float32), weights], out)

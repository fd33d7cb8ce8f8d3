"""What a request changes about single tokens, as ONNX nodes: biases, penalties, forbidden tokens; and the alternatives that it
asks to see.

The host works out one number per row and token (core/src/sampling/adjust.ts), because they follow from token ids alone; runs in
which nobody asks for any skip the nodes.
"""

import numpy as np

from .graph import FLOAT, INT64, Graph


def adjusted(g: Graph, logits: str, vocab: int) -> str:
    """logits [R, V] by the inputs `scale` and `bias`, each [R, V], or [0, V] where no row wants it.

    A positive logit is divided by its scale and a negative one multiplied (Keskar et al. 2019, arXiv 1909.05858, section 4.1,
    with the sign that Hugging Face and vLLM heed), then its bias is added. 1 and 0 change nothing, not even a bit.
    """
    scale, bias = (g.input(name, FLOAT, [f"{name}.rows", vocab]) for name in ("scale", "bias"))

    def scaled(s: Graph) -> str:
        s.node("Greater", [logits, s.constant(0, np.float32)], "scale.positive")
        s.node("Div", [logits, scale], "scale.divided")
        s.node("Mul", [logits, scale], "scale.multiplied")
        return s.node("Where", ["scale.positive", "scale.divided", "scale.multiplied"], "scale.done")

    after = g.choose(filled(g, scale), "with_scale", scaled, logits, FLOAT)
    return g.choose(filled(g, bias), "with_bias", lambda s: s.node("Add", [after, bias], "bias.done"), after, FLOAT)


def filled(g: Graph, rows: str) -> str:
    """Scalar: has `rows` [A, V] any?"""
    g.node("Shape", [rows], f"{rows}.count", start=0, end=1)
    g.node("Squeeze", [f"{rows}.count"], f"{rows}.scalar")
    return g.node("Greater", [f"{rows}.scalar", g.constant(0)], f"{rows}.given")


def nearest(g: Graph, log_probabilities: str) -> None:
    """Outputs top_id [R, K], top_logprob [R, K]: the most probable tokens, for the input top_count [1] = K, which may be 0."""
    count = g.input("top_count", INT64, [1])
    g.node("TopK", [log_probabilities, count], ["top_logprob", "top_id"], axis=1)
    g.output("top_logprob", FLOAT, ["R", "K"])
    g.output("top_id", INT64, ["R", "K"])


def min_p(g: Graph, weights: str, out: str) -> str:
    """weights [R, *], relative to the most probable token's, with those below the input min_p [R, 1] set to 0 (Nguyen et al.
    2024, arXiv 2407.01082)."""
    g.node("Less", [weights, "min_p"], f"{out}.cut")
    return g.node("Where", [f"{out}.cut", g.constant(0, np.float32), weights], out)

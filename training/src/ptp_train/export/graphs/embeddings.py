"""model/embeddings.py as ONNX nodes. The server's uniforms u are multiples of 2^-24 in [0, 1)."""

import numpy as np

from ...model.embeddings import EMBEDDINGS
from .graph import Graph


def features(g: Graph, kind: str, u: str, coordinates: int, harmonics: int) -> str:
    """Maps u [1, M, D] to features [1, M, D * F]."""
    g.node("Unsqueeze", [u, g.constant([3])], "u.column")
    count = EMBEDDINGS[kind].count(harmonics)
    return g.node("Reshape", [FORMS[kind](g, harmonics), g.constant([1, -1, coordinates * count])], "u.features")


def scaled(g: Graph, factors: np.ndarray, out: str) -> str:
    """Returns the products of u and each factor, [1, M, D, F]."""
    return g.node("Mul", ["u.column", g.constant(factors.astype(np.float32), np.float32)], out)


def plain(g: Graph) -> str:
    g.node("Mul", ["u.column", g.constant(2, np.float32)], "u.twice")
    return g.node("Sub", ["u.twice", g.constant(1, np.float32)], "u.centred")


def cosine(g: Graph, count: int) -> str:
    return g.node("Cos", [scaled(g, np.pi * np.arange(1, count + 1, dtype=np.float32), "u.angle")], "u.cos")


def fourier(g: Graph, harmonics: int) -> str:
    parts = [plain(g), cosine(g, harmonics), g.node("Sin", ["u.angle"], "u.sin")]
    return g.node("Concat", parts, "u.harmonics", axis=3)


FORMS = {"fourier": fourier}
"""Functions, by name, that add the nodes from u.column [1, M, D, 1] to features [1, M, D, F]."""

"""embeddings.py as ONNX nodes: features of uniforms u that are multiples of 2^-24 in [0, 1), as the server draws them."""

import numpy as np

from ...model import embeddings
from .graph import FLOAT, INT64, Graph

MANTISSA = 23
SMALLEST = 24
"""u is 0 or at least 2^-24."""


def features(g: Graph, kind: str, u: str, coordinates: int, harmonics: int) -> str:
    """u [1, M, D] -> [1, M, D * F]."""
    g.node("Unsqueeze", [u, g.constant([3])], "u.column")
    rows = fourier(g, harmonics) if kind == "fourier" else FORMS[kind](g)
    count = embeddings.count(kind, harmonics)
    return g.node("Reshape", [rows, g.constant([1, -1, coordinates * count])], "u.features")


def scaled(g: Graph, factors: np.ndarray, out: str) -> str:
    """u times each factor, [1, M, D, F]."""
    return g.node("Mul", ["u.column", g.constant(factors.astype(np.float32), np.float32)], out)


def plain(g: Graph) -> str:
    g.node("Mul", ["u.column", g.constant(2, np.float32)], "u.twice")
    return g.node("Sub", ["u.twice", g.constant(1, np.float32)], "u.centred")


def cosine(g: Graph, count: int = embeddings.LEVELS) -> str:
    return g.node("Cos", [scaled(g, np.pi * np.arange(1, count + 1, dtype=np.float32), "u.angle")], "u.cos")


def fourier(g: Graph, harmonics: int) -> str:
    parts = [plain(g), cosine(g, harmonics), g.node("Sin", ["u.angle"], "u.sin")]
    return g.node("Concat", parts, "u.harmonics", axis=3)


def thermometer(g: Graph) -> str:
    borders = np.arange(embeddings.LEVELS) / embeddings.LEVELS
    g.node("Greater", ["u.column", g.constant(borders, np.float32)], "u.above")
    return g.node("Cast", ["u.above"], "u.levels", to=FLOAT)


def sawtooth(g: Graph) -> str:
    teeth = scaled(g, np.arange(1, embeddings.LEVELS + 1), "u.teeth")
    return g.node("Mod", [teeth, g.constant(1, np.float32)], "u.saw", fmod=1)


def interpolation(g: Graph) -> str:
    vectors = g.constant(np.arange(embeddings.LEVELS + 1), np.float32)
    g.node("Sub", [scaled(g, np.array([embeddings.LEVELS]), "u.place"), vectors], "u.away")
    g.node("Abs", ["u.away"], "u.distance")
    g.node("Sub", [g.constant(1, np.float32), "u.distance"], "u.near")
    return g.node("Relu", ["u.near"], "u.hats")


def binary(g: Graph) -> str:
    """The 32 bits of u as a float32. With u in [2^-k, 2^(1-k)): sign and exponent from a table by k, and the mantissa's bit i
    is floor(2^i f) mod 2, where 1 + f = 2^k u. u = 0 has k = SMALLEST + 1, f = -1, and only zeros."""
    bounds = g.constant(2.0 ** -np.arange(1, SMALLEST + 1), np.float32)
    g.node("Less", ["u.column", bounds], "u.below")
    g.node("Cast", ["u.below"], "u.ones", to=FLOAT)
    g.node("ReduceSum", ["u.ones", g.constant([3])], "u.count", keepdims=0)
    g.node("Cast", ["u.count"], "u.exponent", to=INT64)  # k - 1
    heads = [f"{127 - k:09b}" for k in range(1, SMALLEST + 1)] + ["0" * 9]
    table = np.array([[float(bit) for bit in head] for head in heads], np.float32)
    g.node("Gather", [g.named("u.heads", table), "u.exponent"], "u.head")
    powers = np.array([2.0**k for k in range(1, SMALLEST + 2)], np.float32)
    g.node("Gather", [g.named("u.powers", powers), "u.exponent"], "u.power")
    g.node("Unsqueeze", ["u.power", g.constant([3])], "u.power.column")
    g.node("Mul", ["u.column", "u.power.column"], "u.normalised")
    g.node("Sub", ["u.normalised", g.constant(1, np.float32)], "u.fraction")
    shifts = np.array([2.0**i for i in range(1, MANTISSA + 1)], np.float32)
    g.node("Mul", ["u.fraction", g.named("u.shifts", shifts)], "u.moved")
    g.node("Floor", ["u.moved"], "u.whole")
    g.node("Mod", ["u.whole", g.constant(2, np.float32)], "u.tail", fmod=1)
    g.node("Abs", ["u.tail"], "u.mantissa")
    return g.node("Concat", ["u.head", "u.mantissa"], "u.bits", axis=3)


FORMS = {
    "binary": binary,
    "thermometer": thermometer,
    "float": plain,
    "sawtooth": sawtooth,
    "cosine": cosine,
    "interpolation": interpolation,
}

"""The embeddings of research/embeddings.py as ONNX nodes, so that drafters with them can also be exported."""

import numpy as np

from ptp_train.export.graphs.embeddings import FORMS, cosine, plain, scaled
from ptp_train.export.graphs.graph import FLOAT, INT64, Graph

from . import embeddings

MANTISSA = 23
SMALLEST = 24
"""Exponent of the smallest positive u, 2^-24, without its sign."""


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
    """Adds the 32 bits of u as a float32.

    With u in [2^-k, 2^(1-k)), sign and exponent come from a table by k, and the mantissa's bit i is floor(2^i f) mod 2,
    where 1 + f = 2^k u. u = 0 has k = SMALLEST + 1, f = -1, and only zeros.
    """
    bounds = g.constant(2.0 ** -np.arange(1, SMALLEST + 1), np.float32)
    g.node("Less", ["u.column", bounds], "u.below")
    g.node("Cast", ["u.below"], "u.ones", to=FLOAT)
    g.node("ReduceSum", ["u.ones", g.constant([3])], "u.count", keepdims=0)
    g.node("Cast", ["u.count"], "u.exponent", to=INT64)  # Row k - 1 of the table.
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


FORMS |= {
    "binary": lambda g, harmonics: binary(g),
    "thermometer": lambda g, harmonics: thermometer(g),
    "float": lambda g, harmonics: plain(g),
    "sawtooth": lambda g, harmonics: sawtooth(g),
    "cosine": lambda g, harmonics: cosine(g, embeddings.LEVELS),
    "interpolation": lambda g, harmonics: interpolation(g),
}

"""Experiments with features that the product does not use, and the commands that measure them.

usage, in training/: python -m research COMMAND [options]

Accepts every command of ptp-train, with more losses and embeddings, and six additional commands: inverse, random-walk,
ablate, bounds, distill-twice and curves. `run` also finds the recipes in research/recipes.
"""

import pathlib

from ptp_train.__main__ import main
from ptp_train.cli import recipes
from ptp_train.cli.commands import COMMANDS, Command

from . import graph_embeddings, losses  # noqa: F401 - importing these adds their losses and embeddings to the product's

RECIPES = pathlib.Path(__file__).parent / "recipes"

COMMANDS |= {
    "random-walk": Command("research.random_walk", "write sequences from a known distribution, as a test of `inverse`"),
    "inverse": Command(
        "research.inverse",
        "train a drafter on text, without a teacher (inverse autoregressive training)",
        ("data", "init"),
    ),
    "curves": Command("research.curves", "plot the training of a target and a drafter", ("target", "drafter")),
    "distill-twice": Command(
        "research.two_passes", "train a drafter with two passes", ("target", "samples", "held", "init")
    ),
    "bounds": Command(
        "research.bounds", "measure what limits a drafter at each position", ("target", "drafter", "samples")
    ),
    "ablate": Command(
        "research.ablate",
        "train and compare drafters that differ in one setting",
        ("rows", "target", "samples", "held"),
    ),
}
recipes.FOLDERS.append(RECIPES)

if __name__ == "__main__":
    main()

"""The recipes of the experiments are valid."""

import argparse

import pytest

from ptp_train.cli import recipes
from research.__main__ import RECIPES


@pytest.mark.parametrize(
    "path", [p for p in sorted(RECIPES.glob("*.yaml")) if "-rows" not in p.stem], ids=lambda p: p.stem
)
def test_recipes_are_valid(path, tmp_path):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "text.txt").touch()
    changes = ["*.precision=bfloat16"]
    if path.stem != "inverse":
        changes += [f"corpus.text={tmp_path}", "corpus.files=*.txt"]
    steps = recipes.plan(argparse.Namespace(recipe=str(path), set=changes, work=tmp_path / "work"))
    assert [s.precision for s in steps if s.command in ("distill", "ablate", "inverse")]
    assert steps[0].command in ("corpus", "random-walk")
    assert all(s.precision == "bfloat16" for s in steps if hasattr(s, "precision"))

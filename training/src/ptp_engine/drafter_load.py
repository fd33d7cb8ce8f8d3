"""Loads a drafter, its target and its yield curve."""

import argparse
import pathlib
from dataclasses import replace

from ptp_train.cli.settings import require
from ptp_train.export.manifest import drafting_facts
from ptp_train.model import hugging_face
from ptp_train.model.drafter import Drafter, load_drafter, target_identity_of
from ptp_train.model.drafter_config import DrafterConfig
from ptp_train.model.transformer import Target, identity, load_target, parameters_of

from .drafter import Curves, DrafterModel
from .graphs import CudaGraph
from .load import Options, device_of, folder_of
from .log import log

GUESS = 0.7
"""Probability that a drafted token is correct if all tokens before it are, in the yield curve of a drafter without an
evaluation.
"""
CHECKED = 2_000_000_000
"""Maximum number of parameters for which the target's identity is checked. Larger targets would take too long."""


def load_drafter_model(args: argparse.Namespace) -> DrafterModel:
    """Loads the drafter that the options describe (cli.py)."""
    drafter = load_drafter(args.model)
    config = drafter.config
    require(
        not (config.given and config.pick != "tree"),
        f"CHECKPOINT must pick by the tree of uniforms to check blocks, got {config.pick}: train it with --pick tree",
    )
    target = read_target(args.target, args.context_length)
    check_pair(drafter, target, args.model)
    options = Options.of(args)
    context = args.context_length or target.config.context
    curves = yield_curves(config, args.evaluation or args.model.parent / "evaluation.json")
    record = CudaGraph if device_of(options.device).type == "cuda" else None
    return DrafterModel(drafter, needed(target, config), options, context, curves, record)


def needed(target: Target, config: DrafterConfig) -> Target | None:
    """Removes the parts of a target that the drafter does not use."""
    if config.kind == "separate":
        return None
    target.layers = target.layers[: config.depth]
    if not config.given:
        target.output = None
    return target


def read_target(model: str, context: int | None) -> Target:
    """Reads a Hugging Face model or a target checkpoint of ptp_train. The default of `context` is its maximum."""
    if pathlib.Path(model).is_file():
        return load_target(model)
    folder = folder_of(model, "--target")
    longest = hugging_face.read_json(folder, "config.json").get("max_position_embeddings")
    return hugging_face.load(folder, context or longest, "--context-length")


def check_pair(drafter: Drafter, target: Target, checkpoint: pathlib.Path) -> None:
    """Exits if the drafter was trained for another target."""
    made_for, sizes = (replace(c, context=0) for c in (drafter.config.target, target.config))
    require(made_for == sizes, f"--target must be the target of CHECKPOINT with {made_for}, got {sizes}")
    if parameters_of(target) > CHECKED:
        return
    expected = target_identity_of(checkpoint)
    found = expected and identity(target)
    require(expected == found, f"--target must be the target of CHECKPOINT with identity {expected}, got {found}")


def yield_curves(config: DrafterConfig, evaluation: pathlib.Path) -> Curves:
    """Returns the yield curves of `ptp-train evaluate`.

    Without an evaluation, guesses that each token is correct with probability GUESS. The first token of a `feature`
    drafter is the target's own.
    """
    if not evaluation.exists():
        log.warning(
            "guessing the yield curve, because there is no evaluation: run ptp-train evaluate, and pass --evaluation",
            extra={"missing": evaluation.name},
        )
        curve = [0.0]
        for k in range(config.length):
            curve.append(curve[-1] + GUESS ** (k + 1 - config.given))
        return Curves(curve, curve)
    facts = drafting_facts(evaluation)
    curve = facts["yield_curve"]
    count = config.length + 1
    require(len(curve) == count, f"{evaluation}: yield_curve must have {count} values, got {len(curve)}")
    return Curves(curve, facts.get("yield_curve_after_miss", curve))

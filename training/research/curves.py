"""Plots a pair's training: the target's bits per byte over tokens, and the drafter's tokens per call over steps.

Reads the logs in the checkpoints. A checkpoint without a log, such as an imported target, is left out. Requires
matplotlib.
"""

import argparse
import json
import pathlib

from ptp_train.cli.settings import require
from ptp_train.model.transformer import read_checkpoint

INK, ACCENT = "#333333", "#1f6feb"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--target", type=pathlib.Path, default=pathlib.Path("work/target.pt"))
    add("--drafter", type=pathlib.Path, default=pathlib.Path("work/drafter.pt"))
    add("--out", type=pathlib.Path, default=pathlib.Path("work/curves.svg"), help="*.svg or *.png")


def check(args: argparse.Namespace) -> None:
    require(args.out.suffix in (".svg", ".png"), f"--out must end in .svg or .png, got {args.out}")


def log_of(path: pathlib.Path) -> list[dict]:
    """Returns the training log in a checkpoint, oldest entry first."""
    return read_checkpoint(path).get("log") or []


def draw_target(panel, log: list[dict]) -> None:
    tokens = [entry["tokens"] / 1e6 for entry in log]
    for split, name, colour in (("held_files", "held-out files", ACCENT), ("held_packages", "held-out packages", INK)):
        panel.plot(tokens, [e["bits_per_byte"][split] for e in log], "o-", ms=3, color=colour, label=name)
    panel.set(xlabel="million tokens", ylabel="bits per byte", title="target")
    panel.legend(frameon=False)


def run(args: argparse.Namespace) -> None:
    try:
        import matplotlib
    except ImportError:
        raise SystemExit("curves requires matplotlib: run pip install 'matplotlib>=3.9,<4'") from None
    matplotlib.use("Agg")
    matplotlib.rcParams.update(
        {"svg.hashsalt": "ptp", "font.size": 9, "axes.spines.top": False, "axes.spines.right": False}
    )
    from matplotlib import pyplot

    target, drafter = log_of(args.target), log_of(args.drafter)
    require(
        bool(target or drafter),
        f"--target or --drafter must contain a training log, but neither {args.target} nor {args.drafter} does",
    )
    distilled = not drafter or "tokens_per_call" in drafter[0]
    require(distilled, f"--drafter must be made by `distill`, but the log in {args.drafter} has no tokens_per_call")
    count = bool(target) + bool(drafter)
    figure, axes = pyplot.subplots(1, count, figsize=(4.25 * count, 3), layout="constrained", squeeze=False)
    panels = iter(axes[0])
    if target:
        draw_target(next(panels), target)
    if drafter:
        panel = next(panels)
        panel.plot([e["step"] for e in drafter], [e["tokens_per_call"] for e in drafter], "o-", ms=3, color=ACCENT)
        panel.set(xlabel="steps", ylabel="tokens per target call", title="drafter")
    title = "While training: bits per byte of the target, tokens per target call of the drafter"
    facts = {"Title": title} | ({"Date": None} if args.out.suffix == ".svg" else {})
    figure.savefig(args.out, metadata=facts)
    print(json.dumps({"out": str(args.out), "target_points": len(target), "drafter_points": len(drafter)}))

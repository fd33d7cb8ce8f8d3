"""Draws how a pair was trained: bits per byte of the target over its tokens, tokens per call of the drafter over its steps.

Reads the logs that the checkpoints keep, so that a plot can be made of any of them. Needs matplotlib.
"""

import argparse
import json
import pathlib

import torch

from .settings import require

INK, ACCENT = "#333333", "#1f6feb"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--target", type=pathlib.Path, default=pathlib.Path("work/target.pt"))
    parser.add_argument("--drafter", type=pathlib.Path, default=pathlib.Path("work/drafter.pt"))
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("work/curves.svg"), help="*.svg or *.png")


def check(args: argparse.Namespace) -> None:
    require(args.out.suffix in (".svg", ".png"), f"--out must end in .svg or .png, got {args.out}")


def log_of(path: pathlib.Path) -> list[dict]:
    """The figures measured while the weights of `path` were trained, oldest first."""
    log = torch.load(path, map_location="cpu", mmap=True).get("log") or []
    require(bool(log), f"{path} keeps no log of its training")
    return log


def run(args: argparse.Namespace) -> None:
    try:
        import matplotlib
    except ImportError:
        raise SystemExit("ptp-train curves needs matplotlib: pip install 'matplotlib>=3.9,<4'") from None
    matplotlib.use("Agg")
    matplotlib.rcParams.update(
        {"svg.hashsalt": "ptp", "font.size": 9, "axes.spines.top": False, "axes.spines.right": False}
    )
    from matplotlib import pyplot

    target, drafter = log_of(args.target), log_of(args.drafter)
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(8.5, 3), layout="constrained")
    tokens = [entry["tokens"] / 1e6 for entry in target]
    for split, name, colour in (("held_files", "held-out files", ACCENT), ("held_packages", "held-out packages", INK)):
        left.plot(
            tokens,
            [e["bits_per_byte"][split] for e in target],
            "o-",
            ms=3,
            color=colour,
            label=name,
        )
    left.set(xlabel="million tokens", ylabel="bits per byte", title="target")
    left.legend(frameon=False)
    require(
        "tokens_per_call" in drafter[0],
        f"--drafter must be a distilled one, the log of {args.drafter} has no tokens_per_call",
    )
    steps = [entry["step"] for entry in drafter]
    right.plot(steps, [e["tokens_per_call"] for e in drafter], "o-", ms=3, color=ACCENT)
    right.set(xlabel="steps", ylabel="tokens per target call", title="drafter")
    title = "While training: bits per byte of the target, tokens per target call of the drafter"
    facts = {"Title": title} | ({"Date": None} if args.out.suffix == ".svg" else {})
    figure.savefig(args.out, metadata=facts)
    print(json.dumps({"out": str(args.out), "target_points": len(target), "drafter_points": len(drafter)}))

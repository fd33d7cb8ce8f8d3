"""Estimates the durations of the steps of a recipe on this machine from a few measured operations."""

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch

from ..cli.progress import span
from ..model.transformer import Target, load_target
from . import distill, samples
from .batches import Samples
from .device import device, use_threads

SLOW = 600
"""Minimum duration of the steps that are mentioned, seconds."""
MEASURED = ("teacher-samples", "distill")


def seconds(operation: Callable[[], object]) -> float:
    began = time.perf_counter()
    operation()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - began


def text_of(target: Target, count: int, length: int) -> torch.Tensor:
    return torch.randint(0, target.config.vocab, (count, length), generator=torch.Generator().manual_seed(0))


def sampling_seconds(args: argparse.Namespace, target: Target, place: str) -> float:
    """Returns the duration of `teacher-samples`, from the first tokens of a batch."""
    use_threads(args.threads)
    count = min(args.sequences, samples.batch_of(args, target, place))
    prompts = text_of(target, count, samples.PROMPTS[0][0]).to(place)
    settings = torch.tensor([[0.7, 50.0, 0.9]]).expand(count, 3).to(place)

    def written(tokens: int) -> float:
        generator = torch.Generator().manual_seed(0)
        return seconds(lambda: samples.write(target, prompts, settings, generator, tokens))

    first, more = written(1), written(3)
    batch = first + max(0.0, more - first) / 2 * (samples.GENERATED - 1)
    return batch * args.sequences / count


def distillation_seconds(args: argparse.Namespace, target: Target, place: str) -> float:
    """Returns the duration of `distill`: --minutes, or an estimate from one step on random text."""
    args = distill.shaped(args, target.config)  # Exits before hours of sampling if no drafter pays.
    if args.minutes:
        return 60 * args.minutes
    use_threads(args.threads)
    with tempfile.TemporaryDirectory() as folder:
        tokens = text_of(target, 16, samples.PROMPTS[0][0] + samples.GENERATED).numpy()
        settings = np.tile(np.float32([0.7, 50, 0.9]), (len(tokens), 1))
        np.savez(Path(folder) / "train-0.npz", tokens=tokens, settings=settings)
        held = Samples(Path(folder), "train", place)
    drafter = distill.untrained(args, target, held).to(place)
    batch_loss = distill.DistillationLoss(args, target, drafter, held, place)
    rng = np.random.default_rng(0)

    def step() -> None:
        batch_loss(rng, 0.0)[0].backward()

    if place == "cuda":
        step()  # Compiles the drafter.
    return args.steps * seconds(step)


def long_steps(steps: list[argparse.Namespace]) -> Iterator[str]:
    """Yields a line for each step that takes more than SLOW seconds. The targets of the steps must exist."""
    place = device()
    targets: dict[Path, Target] = {}
    for args in steps:
        if args.command not in MEASURED or not args.target.exists():
            continue
        if args.target not in targets:
            targets[args.target] = load_target(args.target).requires_grad_(False).to(place)
        measure = sampling_seconds if args.command == "teacher-samples" else distillation_seconds
        if (duration := measure(args, targets[args.target], place)) >= SLOW:
            yield f"{args.step} will take about {span(duration)} on this {place}"

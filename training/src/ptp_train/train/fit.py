"""The training loop of targets and drafters: steps, checkpoints, and a log of figures on held-out text."""

import argparse
import math
import pathlib
import time
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from ..cli.progress import Progress
from ..cli.settings import integer, number, require
from ..model.transformer import check_resume, parameters_of, save
from .device import add_precision, seed_everything, step_generator, use_threads
from .optim import MuonAdamW, schedule


def add_fit_arguments(parser: argparse.ArgumentParser, out: str) -> None:
    """Adds the options of every training command. The command's module adds the options for the length of the run and
    the learning rates.
    """
    add = parser.add_argument
    add("--out", type=pathlib.Path, default=pathlib.Path("work") / out, help="checkpoint to write")
    add(
        "--minutes",
        type=number(0),
        default=0,
        help="length of the run in minutes of training, instead of steps or tokens",
    )
    clocks = ("wall", "processor")
    add(
        "--clock",
        choices=clocks,
        default="wall",
        help="clock for --minutes; processor time counts each thread separately",
    )
    add_precision(parser)
    add("--threads", type=integer(1, 1024), default=2, help="CPU threads")
    add("--checkpoint-seconds", type=number(0), default=300, help="time between checkpoints")
    add("--seed", type=integer(0, 2**32 - 1), default=0, help="seed of all random numbers")


def add_steps_and_rates(parser: argparse.ArgumentParser, steps: int) -> None:
    """Adds the options for length and learning rates of a drafter's run."""
    add, rate = parser.add_argument, number(0, 1, above=True)
    add("--steps", type=integer(1), default=steps, help="length of the run")
    add("--rate", type=rate, default=1e-3, help="learning rate of AdamW, for embeddings, heads and vectors")
    add("--matrix-rate", type=rate, default=0.01, help="learning rate of Muon, for the layers' matrices")


def fit(
    args: argparse.Namespace,
    module: nn.Module,
    batch_loss: Callable[[np.random.Generator, float], tuple[Tensor, dict[str, float]]],
    measure: Callable[[], dict],
    kind: str,
    extra: dict,
    unit: str = "steps",
    per_step: int = 1,
) -> dict:
    """Trains `module` for --minutes, or else for --steps or --tokens. Returns the last figures.

    batch_loss: function that maps a random generator and the completed fraction of the run to the loss of a new batch,
    and scalars for the log.
    measure: function that returns figures on held-out text.
    extra: facts for the checkpoints.
    unit, per_step: unit of the run's length, and number of units per step.

    A run resumes from the checkpoint at --out, with the random numbers of an uninterrupted run.
    """
    use_threads(args.threads)
    device = next(module.parameters()).device
    optimiser = MuonAdamW(module, args.matrix_rate, args.rate, dtype=getattr(torch, args.precision))
    checkpoint = args.out.with_suffix(".checkpoint.pt")
    step, spent, log = 0, 0.0, []
    if checkpoint.exists():
        stored = torch.load(checkpoint, map_location=device)
        check_resume(checkpoint, stored, module)
        known = stored.get("extra")
        require(
            known == extra,
            f"{checkpoint} was started with {known}, not with {extra}: remove it, or choose another --out",
        )
        module.load_state_dict(stored["weights"])
        optimiser.load_state_dict(stored["optimiser"])
        step, spent, log = stored["step"], stored["spent"], stored["log"]
        print(f"resumed at {step * per_step:,} {unit}", flush=True)
    total, goal = (args.minutes, "minutes") if args.minutes else (getattr(args, unit), unit)
    count = sum(p.numel() for p in module.parameters() if p.requires_grad)
    print(f"{count:,} of {parameters_of(module):,} parameters trained on {device.type}, {total:,g} {goal}", flush=True)
    clock = time.time if args.clock == "wall" else lambda: time.process_time() / args.threads

    def done() -> float:
        return spent / 60 if args.minutes else step * per_step

    saved = time.monotonic()
    with Progress(getattr(args, "logs", None), total, goal, done(), step * per_step, settings=vars(args)) as progress:
        while done() < total:
            began = clock()
            module.train()
            seed_everything(args.seed, step)
            loss, scalars = batch_loss(step_generator(args.seed, step), done() / total)
            loss.backward()
            factor = schedule(done() / total)
            optimiser.step(factor)
            step += 1
            spent += clock() - began
            scalars |= {"schedule": factor, "seconds_per_step": spent / step}
            progress.update(done(), step * per_step, loss=loss.detach(), **scalars)
            if time.monotonic() - saved <= args.checkpoint_seconds and done() < total:
                continue
            finite = math.isfinite(loss.item())
            require(finite, f"loss must be finite, got {loss.item()} at step {step}: lower --rate and --matrix-rate")
            module.eval()
            log.append({"minutes": round(spent / 60, 2), "loss": round(progress.mean("loss"), 4), **measure()})
            progress.record(step * per_step, **log[-1])
            log[-1] |= {"step": step, unit: step * per_step}
            state = {"optimiser": optimiser.state_dict(), "step": step, "spent": spent, "log": log, "extra": extra}
            save(checkpoint, f"{kind} checkpoint", module, **state)
            settings = {k: str(v) for k, v in vars(args).items() if k != "run"}
            save(args.out, kind, module, log=log, settings=settings, **extra)
            saved = time.monotonic()
    return log[-1]

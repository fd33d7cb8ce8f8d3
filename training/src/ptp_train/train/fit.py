"""The training loop of drafters: steps, checkpoints, a log of held-out figures."""

import argparse
import math
import pathlib
import time
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from ..cli.progress import Progress
from ..cli.settings import integer, number
from ..model.transformer import check_resume, parameters_of, save
from .device import add_precision, use_threads
from .optim import MuonAdamW, schedule


def add_fit_arguments(parser: argparse.ArgumentParser, out: str, steps: int) -> None:
    add = parser.add_argument
    add("--out", type=pathlib.Path, default=pathlib.Path("work") / out)
    add("--steps", type=integer(1), default=steps)
    add("--minutes", type=number(0), default=0, help="length of the run in minutes of training, in place of --steps")
    add(
        "--clock",
        choices=("wall", "processor"),
        default="wall",
        help="clock of --minutes; processor time is per thread",
    )
    add(
        "--rate",
        type=number(0, 1, above=True),
        default=1e-3,
        help="learning rate of AdamW, for embeddings, heads and vectors",
    )
    add(
        "--matrix-rate",
        type=number(0, 1, above=True),
        default=0.01,
        help="learning rate of Muon, for the layers' matrices",
    )
    add_precision(parser)
    add("--threads", type=integer(1, 1024), default=2)
    add("--checkpoint-seconds", type=number(0), default=300)
    add("--seed", type=integer(0), default=0)


def fit(
    args: argparse.Namespace,
    module: nn.Module,
    lesson: Callable[[np.random.Generator], tuple[Tensor, float]],
    measure: Callable[[], dict],
    kind: str,
    extra: dict,
) -> dict:
    """Trains `module` for --steps or --minutes, resuming from the checkpoint of --out; returns the last figures.

    lesson: loss of a new batch, and its share of correct answers for the log. measure: figures on held-out text.
    """
    use_threads(args.threads)
    torch.manual_seed(args.seed)
    device = next(module.parameters()).device
    optimiser = MuonAdamW(module, args.matrix_rate, args.rate, dtype=getattr(torch, args.precision))
    checkpoint = args.out.with_suffix(".checkpoint.pt")
    step, spent, log = 0, 0.0, []
    if checkpoint.exists():
        stored = torch.load(checkpoint, map_location=device)
        check_resume(checkpoint, stored, module)
        if stored["extra"] != extra:
            raise SystemExit(
                f"{checkpoint} was started with {stored['extra']}, not {extra}: remove it, or choose another --out"
            )
        module.load_state_dict(stored["weights"])
        optimiser.load_state_dict(stored["optimiser"])
        step, spent, log = stored["step"], stored["spent"], stored["log"]
        print(f"resumed at step {step}", flush=True)
    rng = np.random.default_rng((args.seed, step))
    torch.manual_seed(args.seed + step)
    count = sum(p.numel() for p in module.parameters() if p.requires_grad)
    goal = f"{args.minutes:g} minutes" if args.minutes else f"{args.steps:,} steps"
    print(f"{count:,} of {parameters_of(module):,} parameters trained on {device.type}, {goal}", flush=True)
    clock = time.time if args.clock == "wall" else lambda: time.process_time() / args.threads
    total, unit = (args.minutes, "minutes") if args.minutes else (args.steps, "steps")
    saved, done = time.monotonic(), spent / 60 if args.minutes else step
    with Progress(getattr(args, "logs", None), total, unit, done, step, settings=vars(args)) as progress:
        while done < total:
            began = clock()
            module.train()
            loss, correct = lesson(rng)
            loss.backward()
            optimiser.step(schedule(done / total))
            step += 1
            spent += clock() - began
            done = spent / 60 if args.minutes else step
            progress.update(done, step, loss=loss.detach(), first_right=correct, seconds_per_step=spent / step)
            if time.monotonic() - saved > args.checkpoint_seconds or done >= total:
                if not math.isfinite(loss.item()):
                    raise SystemExit(
                        f"loss must be finite, got {loss.item()} at step {step}: lower --rate and --matrix-rate"
                    )
                module.eval()
                log.append({"minutes": round(spent / 60, 2), "loss": round(progress.mean("loss"), 4), **measure()})
                progress.record(step, **log[-1])
                log[-1]["step"] = step
                state = {"optimiser": optimiser.state_dict(), "step": step, "spent": spent, "log": log, "extra": extra}
                save(checkpoint, f"{kind} checkpoint", module, **state)
                settings = {k: str(v) for k, v in vars(args).items() if k != "run"}
                save(args.out, kind, module, log=log, settings=settings, **extra)
                saved = time.monotonic()
    return log[-1]

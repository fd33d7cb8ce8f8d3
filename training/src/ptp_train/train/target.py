"""Trains the target by next-token prediction, resuming from its checkpoint; reports bits per byte on held-out text."""

import argparse
import json
import math
import pathlib
import time
from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F

from ..cli.progress import Progress
from ..cli.settings import integer, integers, multiple, number, planned, require
from ..model import grow
from ..model.transformer import Config, Target, check_resume, identity, load_target, parameters_of, save
from .bits_per_byte import on_held_out
from .device import add_precision, autocast, compiled, device, seed_everything, step_generator, use_threads
from .optim import MuonAdamW, schedule

LONG_SHARE = 0.2
"""Share of the run, at its end, on sequences of the full context. Earlier ones are half as long, which is cheaper."""
RATES = (3e-3, 0.02)
"""Learning rates of AdamW and Muon."""
GENTLER = 0.1
"""Factor on both when training continues from --init."""


def windows(tokens: np.ndarray, count: int, length: int, rng: np.random.Generator) -> torch.Tensor:
    """`count` random windows of length + 1 tokens, int64 [count, length + 1]."""
    starts = rng.integers(0, len(tokens) - length - 1, count)
    return torch.from_numpy(np.stack([tokens[s : s + length + 1] for s in starts]).astype(np.int64))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--data", type=pathlib.Path, default=pathlib.Path("work/tokens"), help="folder of tokenizer.json and tokens")
    add("--out", type=pathlib.Path, default=pathlib.Path("work/target.pt"), help="the trained target")
    add("--init", type=pathlib.Path, help="continue from this target, with its sizes and a tenth of the rates")
    add(
        "--grow",
        action="store_true",
        help="first make --init deeper and wider, to --layers, --width and --hidden, without changing its outputs",
    )
    add(
        "--take",
        type=integers(0, 95),
        help="continue with only these layers of --init, such as 0,4,9, at the usual rates: a small draft model for it",
    )
    add("--tokens", type=integer(1, 10**13), default=6_000_000, help="length of the run in tokens")
    add("--minutes", type=number(0), default=0, help="length of the run in minutes of training, in place of --tokens")
    add("--batch-tokens", type=integer(64, 2**24), default=2048, help="tokens per step")
    add("--layers", type=integer(1, 96), default=8)
    add("--width", type=multiple(64, 64, 8192), default=256, help="of hidden states; one head per 64")
    add("--hidden", type=integer(16, 65536), default=704, help="width of the feed-forward layers")
    add("--context", type=integer(64, 131072), default=1024, help="longest sequence, in tokens")
    add(
        "--rate",
        type=number(0, 1, above=True),
        help=f"learning rate of AdamW, for embedding and norms (default {RATES[0]})",
    )
    add(
        "--matrix-rate",
        type=number(0, 1, above=True),
        help=f"learning rate of Muon, for the layers' matrices (default {RATES[1]})",
    )
    add_precision(parser)
    add("--threads", type=integer(1, 1024), default=2, help="CPU threads")
    add("--checkpoint-seconds", type=number(0), default=240, help="time between checkpoints")
    add("--seed", type=integer(0, 2**32 - 1), default=0)


def sizes_of(args: argparse.Namespace, vocab: int) -> Config:
    """Sizes from --layers, --width, --hidden and --context."""
    heads = args.width // 64
    return Config(vocab, args.width, args.layers, heads, max(1, heads // 2), hidden=args.hidden, context=args.context)


def config_of_init(args: argparse.Namespace, vocab: int) -> Config | None:
    """Sizes of --init, or those of the earlier step of a recipe that will write it; None if there is neither."""
    if args.init.exists():
        return Config(**torch.load(args.init, map_location="cpu", mmap=True)["config"])
    earlier = planned(args, args.init)
    return config_of(earlier, vocab) if earlier and earlier.command == "target" else None


def taken(target: Target, chosen: tuple[int, ...]) -> Target:
    """A smaller model of the `chosen` layers, with the target's embedding and head."""
    small = Target(replace(target.config, layers=len(chosen)))
    weights = {name: value for name, value in target.state_dict().items() if not name.startswith("layers.")}
    for to, layer in enumerate(chosen):
        weights |= {f"layers.{to}.{name}": value for name, value in target.layers[layer].state_dict().items()}
    small.load_state_dict(weights)
    return small


def config_of(args: argparse.Namespace, vocab: int) -> Config:
    """Sizes of the target to train: those of --init, unless there is none or it is grown."""
    if args.grow or not args.init:
        return sizes_of(args, vocab)
    sizes = config_of_init(args, vocab) or sizes_of(args, vocab)
    return replace(sizes, layers=len(args.take)) if args.take else sizes


def check(args: argparse.Namespace) -> None:
    context = config_of(args, 512).context
    fits = args.batch_tokens % context == 0
    require(fits, f"--batch-tokens must be a multiple of --context {context}, got {args.batch_tokens}")
    require(bool(args.init) or not args.grow, "--grow needs --init, the target to grow")
    if args.grow and (old := config_of_init(args, 512)):
        grow.check(old, sizes_of(args, old.vocab))
    require(bool(args.init) or not args.take, "--take needs --init, the target whose layers to take")
    require(not (args.take and args.grow), "--take and --grow exclude each other")
    if args.take and (old := config_of_init(args, 512)):
        fits = max(args.take) < old.layers
        require(fits, f"--take must name layers in [0, {old.layers - 1}], got {','.join(map(str, args.take))}")


def start(args: argparse.Namespace) -> Target:
    """The target to start from: random, or that of --init."""
    vocab = len(json.loads((args.data / "tokenizer.json").read_text())["model"]["vocab"])
    if args.init:
        model = load_target(args.init)
        fits = model.config.vocab == vocab
        require(fits, f"--init must have the vocabulary of --data, {vocab} tokens, got {model.config.vocab}")
        if args.grow:
            model = grow.grown(model, sizes_of(args, vocab))
        if args.take:
            model = taken(model, args.take)
    else:
        model = Target(config_of(args, vocab))
    args.rate, args.matrix_rate = (
        given or usual * (GENTLER if args.init and not args.take else 1)
        for given, usual in zip((args.rate, args.matrix_rate), RATES, strict=True)
    )
    return model


def run(args: argparse.Namespace) -> None:
    use_threads(args.threads)
    seed_everything(args.seed)
    place = device()
    model = start(args).to(place)
    origin = {"init": identity(model)} if args.init else {}
    predict = compiled(model, place)
    optimiser = MuonAdamW(model, args.matrix_rate, args.rate, dtype=getattr(torch, args.precision))
    tokens = np.load(args.data / "train.npy")
    longest = model.config.context
    require(len(tokens) > longest + 1, f"--data must have more than {longest + 1} tokens, got {len(tokens)}")
    checkpoint = args.out.with_suffix(".checkpoint.pt")
    done, spent, log = 0, 0.0, []
    if checkpoint.exists():
        stored = torch.load(checkpoint, map_location=place)
        check_resume(checkpoint, stored, model)
        same = stored.get("origin", {}) == origin
        require(same, f"{checkpoint} was started from another --init: remove it, or choose another --out")
        model.load_state_dict(stored["weights"])
        optimiser.load_state_dict(stored["optimiser"])
        done, spent, log = stored["done"], stored.get("spent", 0.0), stored["log"]
        print(f"resumed at {done:,} tokens", flush=True)
    goal = f"{args.minutes:g} minutes" if args.minutes else f"{args.tokens:,} tokens"
    print(f"{parameters_of(model):,} parameters on {place}, {goal}", flush=True)

    def share_done() -> float:
        return spent / 60 / args.minutes if args.minutes else done / args.tokens

    saved = time.monotonic()
    total, unit = (args.minutes, "minutes") if args.minutes else (args.tokens, "tokens")
    amount = spent / 60 if args.minutes else done
    with Progress(getattr(args, "logs", None), total, unit, amount, done, settings=vars(args)) as progress:
        while (share := share_done()) < 1:
            began = time.monotonic()
            length = longest if share >= 1 - LONG_SHARE else longest // 2
            batch = windows(tokens, args.batch_tokens // length, length, step_generator(args.seed, done)).to(place)
            with autocast(place, args.precision):
                loss = F.cross_entropy(predict(batch[:, :-1]).flatten(0, 1).float(), batch[:, 1:].flatten())
            loss.backward()
            optimiser.step(schedule(share))
            done += args.batch_tokens
            spent += time.monotonic() - began
            progress.update(spent / 60 if args.minutes else done, done, loss=loss.detach(), schedule=schedule(share))
            if time.monotonic() - saved > args.checkpoint_seconds or share_done() >= 1:
                require(
                    math.isfinite(loss.item()),
                    f"loss must be finite, got {loss.item()} at {done:,} tokens: lower --rate and --matrix-rate",
                )
                log.append(
                    {
                        "tokens": done,
                        "loss": round(progress.mean("loss"), 4),
                        "bits_per_byte": on_held_out(model, args.data, 32),
                    }
                )
                progress.record(done, bits_per_byte=log[-1]["bits_per_byte"])
                state = {
                    "optimiser": optimiser.state_dict(),
                    "done": done,
                    "spent": spent,
                    "log": log,
                    "origin": origin,
                }
                save(checkpoint, "target checkpoint", model, **state)
                saved = time.monotonic()
    figures = on_held_out(model, args.data, 200)
    settings = {k: str(v) for k, v in vars(args).items()}
    save(
        args.out,
        "target",
        model,
        log=log,
        bits_per_byte=figures,
        tokens=done,
        settings=settings,
        identity=identity(model),
        **origin,
    )
    print(json.dumps({"bits_per_byte": figures, "tokens": done, "minutes": round(spent / 60, 1)}))

"""Trains the target by next-token prediction, resuming from its checkpoint. Reports bits per byte on held-out text."""

import argparse
import json
import pathlib
from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
from tokenizers import Tokenizer

from ..cli.settings import integer, integers, multiple, number, planned, require
from ..model import grow
from ..model.transformer import Config, Target, identity, load_target, read_checkpoint, save
from .bits_per_byte import on_held_out
from .device import autocast, compiled, device, seed_everything
from .fit import add_fit_arguments, fit

LONG_SHARE = 0.2
"""Final share of the run that trains on sequences of the full context. Earlier sequences are half as long, which is
cheaper.
"""
RATES = (3e-3, 0.02)
"""Learning rates of AdamW and Muon."""
GENTLER = 0.1
"""Factor on both learning rates if training continues from --init."""


def windows(tokens: np.ndarray, count: int, length: int, rng: np.random.Generator) -> torch.Tensor:
    """Returns `count` random windows of length + 1 tokens, int64 [count, length + 1]."""
    starts = rng.integers(0, len(tokens) - length - 1, count)
    return torch.from_numpy(np.stack([tokens[s : s + length + 1] for s in starts]).astype(np.int64))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--data", type=pathlib.Path, default=pathlib.Path("work/tokens"), help="folder of tokenizer.json and tokens")
    add(
        "--init",
        type=pathlib.Path,
        help="target to continue from, with the same sizes and a tenth of the learning rates",
    )
    add(
        "--grow",
        action="store_true",
        help="first make --init deeper and wider, to --layers, --width and --hidden, without changing its outputs",
    )
    add(
        "--take",
        type=integers(0, 95),
        help="train only these layers of --init, such as 0,4,9, at the usual rates; the result is a small draft model for --init",
    )
    add("--tokens", type=integer(1, 10**13), default=6_000_000, help="number of tokens to train on")
    add("--batch-tokens", type=integer(64, 2**24), default=2048, help="tokens per step")
    add("--layers", type=integer(1, 96), default=8, help="number of layers")
    add("--width", type=multiple(64, 64, 8192), default=256, help="width of hidden states, which have one head per 64")
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
    add_fit_arguments(parser, "target.pt")


def sizes_of(args: argparse.Namespace, vocab: int) -> Config:
    """Returns the sizes given by --layers, --width, --hidden and --context."""
    heads = args.width // 64
    return Config(vocab, args.width, args.layers, heads, max(1, heads // 2), hidden=args.hidden, context=args.context)


def config_of_init(args: argparse.Namespace, vocab: int) -> Config | None:
    """Returns the sizes of --init, or of the target that an earlier step of the recipe will write to --init. Returns
    None if there is neither.
    """
    if args.init.exists():
        return Config(**read_checkpoint(args.init)["config"])
    earlier = planned(args, args.init)
    return config_of(earlier, vocab) if earlier and earlier.command == "target" else None


def taken(target: Target, chosen: tuple[int, ...]) -> Target:
    """Returns a smaller model with the `chosen` layers and the target's embedding and head."""
    small = Target(replace(target.config, layers=len(chosen)))
    weights = {name: value for name, value in target.state_dict().items() if not name.startswith("layers.")}
    for to, layer in enumerate(chosen):
        weights |= {f"layers.{to}.{name}": value for name, value in target.layers[layer].state_dict().items()}
    small.load_state_dict(weights)
    return small


def config_of(args: argparse.Namespace, vocab: int) -> Config:
    """Returns the sizes of the target to train. They are the sizes of --init, unless there is no --init or it is grown."""
    if args.grow or not args.init:
        return sizes_of(args, vocab)
    sizes = config_of_init(args, vocab) or sizes_of(args, vocab)
    return replace(sizes, layers=len(args.take)) if args.take else sizes


def special_tokens_of(init: pathlib.Path | None) -> dict:
    """Returns the special tokens of an imported target, which models trained from it keep, or {} for other targets."""
    return read_checkpoint(init).get("special_tokens", {}) if init else {}


def check(args: argparse.Namespace) -> None:
    context = config_of(args, 512).context
    fits = args.batch_tokens % context == 0
    require(fits, f"--batch-tokens must be a multiple of --context {context}, got {args.batch_tokens}")
    require(bool(args.init) or not args.grow, "--grow requires --init, the target to grow")
    if args.grow and (old := config_of_init(args, 512)):
        grow.check(old, sizes_of(args, old.vocab))
    require(bool(args.init) or not args.take, "--take requires --init, the target whose layers are taken")
    require(not (args.take and args.grow), "--take and --grow must not be given together")
    if args.take and (old := config_of_init(args, 512)):
        fits = max(args.take) < old.layers
        require(fits, f"--take must name layers in [0, {old.layers - 1}], got {','.join(map(str, args.take))}")


def check_vocabulary(rows: int, tokens: int, imported: bool) -> None:
    """Exits if --init cannot have been made for the tokenizer of --data. Imported models may have more rows than
    tokens, because many models are padded to a multiple of 64 or 128 rows.
    """
    fits = rows >= tokens if imported else rows == tokens
    limit = "a vocabulary of at least the size of" if imported else "the same vocabulary size as"
    require(fits, f"--init must have {limit} --data ({tokens}), got {rows}")


def start(args: argparse.Namespace) -> Target:
    """Returns the target to start from: a target made from --init, or else a random one."""
    vocab = max(Tokenizer.from_file(str(args.data / "tokenizer.json")).get_vocab().values()) + 1
    if args.init:
        model = load_target(args.init)
        check_vocabulary(model.config.vocab, vocab, bool(special_tokens_of(args.init)))
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


def training_tokens(data: pathlib.Path) -> np.ndarray:
    path = data / "train.npy"
    require(path.exists(), f"--data must contain an encoded corpus, {path} is missing: `ptp-train tokenizer` makes it")
    return np.load(path)


def run(args: argparse.Namespace) -> None:
    seed_everything(args.seed)
    place = device()
    model = start(args).to(place)
    predict = compiled(model, place)
    tokens = training_tokens(args.data)
    longest = model.config.context
    require(len(tokens) > longest + 1, f"--data must have more than {longest + 1} tokens, got {len(tokens)}")

    def batch_loss(rng: np.random.Generator, done: float) -> tuple[torch.Tensor, dict[str, float]]:
        length = longest if done >= 1 - LONG_SHARE else longest // 2
        batch = windows(tokens, args.batch_tokens // length, length, rng).to(place)
        with autocast(place, args.precision):
            return F.cross_entropy(predict(batch[:, :-1]).flatten(0, 1).float(), batch[:, 1:].flatten()), {}

    def measure() -> dict:
        return {"bits_per_byte": on_held_out(model, args.data, 32)}

    origin = {"init": identity(model)} if args.init else {}
    last = fit(args, model, batch_loss, measure, "target", origin, "tokens", args.batch_tokens)
    facts = {"bits_per_byte": on_held_out(model, args.data, 200), "tokens": last["tokens"]}
    written = torch.load(args.out, map_location="cpu")
    kept = {name: written[name] for name in ("log", "settings", *origin)}
    if special := special_tokens_of(args.init):
        kept["special_tokens"] = special
    save(args.out, "target", model, **kept, **facts, identity=identity(model))
    print(json.dumps({**facts, "minutes": last["minutes"]}))

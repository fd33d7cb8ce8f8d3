"""Trains a C-PTP drafter on text, without a teacher: inverse autoregressive training (docs/ptp.md, "Training").

For a piece t_1 .. t_L of text, the uniforms under which the drafter would produce it are found position by position:
P_k is the drafter's own distribution given u_1 .. u_{k-1}, and u_k is drawn inside the interval of t_k under it. The
loss is cross-entropy on all positions at once, with these uniforms. With --length 1, this is plain next-token training,
which is the baseline. With --method independent, positions do not see earlier tokens, which shows the value of the
uniforms.
"""

import argparse
import json
import math
import pathlib

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ptp_train.cli.settings import integer, require
from ptp_train.model import coordinates
from ptp_train.model.drafter import Drafter, load_drafter
from ptp_train.model.transformer import Config, load_target, read_checkpoint
from ptp_train.train.device import autocast, device
from ptp_train.train.distill import add_drafter_arguments, drafter_config, layers_of, untrained
from ptp_train.train.fit import add_fit_arguments, add_steps_and_rates, fit
from ptp_train.train.target import windows

HELD_TOKENS = 16_384
"""Number of tokens of held-out text on which perplexity is measured for the log, in windows of --context tokens."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add_steps_and_rates(parser, 2000)
    add_fit_arguments(parser, "inverse.pt")
    add("--data", type=pathlib.Path, default=pathlib.Path("work/tokens"))
    add_drafter_arguments(parser)
    parser.set_defaults(kind="separate", length=4)
    add(
        "--init",
        type=pathlib.Path,
        help="target whose layers --source are the initial layers, or a drafter with the same sizes that `inverse` trained",
    )
    add("--context", type=integer(2), default=512, help="number of tokens in a window")
    add("--completions", type=integer(1), default=256, help="completions per step")
    add("--windows", type=integer(1), default=4, help="number of windows in each step")


def check(args: argparse.Namespace) -> None:
    for name, wanted in (("kind", ("separate",)), ("method", ("c", "independent"))):
        given = getattr(args, name)
        require(
            given in wanted, f"--{name} must be {' or '.join(wanted)}, got {given}: `inverse` trains without a teacher"
        )
    require(not args.shortlist, f"--shortlist must be 0, got {args.shortlist}: `inverse` learns all tokens of the text")
    require(args.length < args.context, f"--length must be in [1, {args.context - 1}], got {args.length}")


def unrestricted(ids: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Returns the conditions of plain text: temperature 1, top_p 1, no top_k, each [B, 1, 1]."""
    one = torch.ones(len(ids), 1, 1, device=ids.device)
    return one, one, torch.zeros_like(one)


def inverted(drafter: Drafter, cache: list, last: Tensor, starts: Tensor, answers: Tensor, conditions) -> Tensor:
    """Returns the uniforms [B, N, L, D] under which `drafter` itself produces the answers [B, N, L], without gradients."""
    c = drafter.config
    u = torch.zeros(*answers.shape, c.coordinates, device=answers.device)
    if c.method == "independent":  # This method sees no uniforms.
        return u
    with torch.no_grad():
        for k in range(answers.shape[-1]):
            # Position k sees only earlier uniforms, and the head sees only earlier answers.
            hidden = drafter.hidden(cache, last, starts, u[:, :, : k + 1], conditions)
            p = drafter.logits(hidden, last, conditions, answers[:, :, : k + 1])[:, :, k].float().softmax(-1)
            low, high = coordinates.interval(c.pick, p, answers[:, :, k])
            u[:, :, k] = coordinates.between(low, high, torch.rand_like(low))
    return u


def losses(drafter: Drafter, ids: Tensor, starts: Tensor) -> Tensor:
    """Returns the cross-entropy [B, N, L] of completions of ids [B, S] from starts [B, N]."""
    length = drafter.config.length
    cache = drafter.read(ids)
    index = (starts[:, :, None] + torch.arange(length, device=ids.device)).flatten(1)
    answers = ids.gather(1, index).view(*starts.shape, length)
    last, conditions = ids.gather(1, starts - 1), unrestricted(ids)
    u = inverted(drafter, [(k.detach(), v.detach()) for k, v in cache], last, starts, answers, conditions)
    logits = drafter(cache, last, starts, u, conditions, answers).float()
    return F.cross_entropy(logits.flatten(0, 2), answers.flatten(), reduction="none").view(answers.shape)


def perplexity(drafter: Drafter, tokens: np.ndarray, context: int) -> dict:
    """Returns exp of the mean cross-entropy on held-out text, over all positions of completions and for each position."""
    torch.manual_seed(1)
    where = next(drafter.parameters()).device
    starts = torch.arange(1, context - drafter.config.length, drafter.config.length, device=where)[None]
    rows = []
    for s in np.linspace(0, len(tokens) - context - 1, max(1, HELD_TOKENS // context)).astype(int):
        ids = torch.from_numpy(tokens[s : s + context].astype(np.int64)).to(where)[None]
        with torch.no_grad():
            rows.append(losses(drafter, ids, starts)[0])
    mean = torch.cat(rows).mean(0)
    return {
        "perplexity": round(math.exp(mean.mean()), 4),
        "by_position": [round(math.exp(x), 4) for x in mean.tolist()],
    }


def start(args: argparse.Namespace) -> Drafter:
    """Returns the drafter to start from: a random one, or a drafter with the layers of --init. Its first position then
    makes the same predictions as --init.
    """
    settings = argparse.Namespace(**vars(args), from_target=args.init is not None)
    if args.init:
        kind = read_checkpoint(args.init).get("kind")
        require(kind in ("target", "drafter"), f"--init must be a target or a drafter, got a {kind} in {args.init}")
        if kind == "drafter":
            return continued(settings, load_drafter(args.init))
        return untrained(settings, load_target(args.init), None)
    vocab = len(json.loads((args.data / "tokenizer.json").read_text())["model"]["vocab"])
    return Drafter(drafter_config(settings, Config(vocab, args.width, len(layers_of(args)), context=args.context)))


@torch.no_grad()
def continued(args: argparse.Namespace, old: Drafter) -> Drafter:
    """Returns a drafter with the weights and sizes of `old`, to continue training with a different --length, --method or
    --rank.
    """
    c = old.config
    own = c.kind == "separate" and c.method != "o"
    require(
        own,
        "--init must be a target or a drafter trained by `inverse`; "
        f"this drafter was trained with --kind {c.kind} and --method {c.method}",
    )
    drafter = Drafter(drafter_config(args, c.sizes))
    drafter.start_from(old, layers_of(args))
    for name in ("pick", "embedding", "frequencies"):
        was, given = getattr(c, name), getattr(args, name)
        require(was == given, f"--{name} must be {was}, as in --init, got {given}")
    drafter.uniform.load_state_dict(old.uniform.state_dict())
    if c.length == 1 or c.method == "independent":  # These weights have never seen uniforms.
        drafter.fit_uniforms()
    if old.sequential is not None:
        require(args.rank == c.rank, f"--rank must be {c.rank}, as in --init, got {args.rank}")
        drafter.sequential.load_state_dict(old.sequential.state_dict())
    return drafter


def run(args: argparse.Namespace) -> None:
    check(args)
    place = device()
    drafter = start(args).to(place)
    tokens, held = (np.load(args.data / f"{split}.npy") for split in ("train", "held_files"))

    def batch_loss(rng: np.random.Generator, done: float) -> tuple[Tensor, dict[str, float]]:
        ids = windows(tokens, args.windows, args.context - 1, rng).to(place)
        shape = (args.windows, max(1, args.completions // args.windows))
        starts = torch.from_numpy(rng.integers(1, args.context - args.length + 1, shape)).to(place)
        with autocast(place, args.precision):
            loss = losses(drafter, ids, starts).mean()
        return loss, {"first_right": math.exp(-loss.item())}

    fit(
        args, drafter, batch_loss, lambda: perplexity(drafter, held, args.context), "drafter", {"target_identity": None}
    )

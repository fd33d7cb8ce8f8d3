"""Distils a drafter from the target, on sequences that `teacher-samples` wrote.

For random starts, uniforms are drawn inside each token's interval by Beta(b, b). b < 1 prefers the boundaries, where
drafters make mistakes. O-PTP learns the token; C-PTP and independent prediction learn the token (ce) or the target's
whole distribution (kl). Later positions have less weight (decay^k).
"""

import argparse
import pathlib
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from ..cli.settings import integer, matching, multiple, number, require
from ..model import cost, embeddings
from ..model.drafter import Drafter, load_drafter
from ..model.drafter_config import KINDS, METHODS, DrafterConfig
from ..model.grow import grown_drafter
from ..model.transformer import Config, Target, identity, load_target
from . import memory
from .batches import DraftBatch, Samples, TargetOutputsCache, draft_batch
from .device import autocast, compiled, device
from .evaluate import quick
from .fit import add_fit_arguments, add_steps_and_rates, fit
from .losses import LOSSES
from .samples import GENERATED

SHAPE = {"kind": "reader", "source": "0,1,3", "rank": 128, "shortlist": 0}
"""Default shape of a drafter."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add_steps_and_rates(parser, 4000)
    add_fit_arguments(parser, "drafter.pt")
    add("--target", type=pathlib.Path, default=pathlib.Path("work/target.pt"), help="the target's checkpoint")
    add("--samples", type=pathlib.Path, default=pathlib.Path("work/samples"), help="folder of training samples")
    add(
        "--held",
        type=pathlib.Path,
        help="folder of held_files samples on which the log's figures are measured (default: --samples)",
    )
    add_drafter_arguments(parser)
    add(
        "--from-target",
        action="store_true",
        help="give a separate drafter the target's sizes, and the weights of its layers --source",
    )
    add(
        "--init",
        type=pathlib.Path,
        help="drafter to continue from, which must have the same shape, or is grown if the target is larger",
    )
    defaults = ", ".join(f"--{name} {value}" for name, value in SHAPE.items())
    parser.set_defaults(**dict.fromkeys(SHAPE))  # So that `check` knows which of these options were given.
    add(
        "--shape",
        choices=("manual", "auto"),
        default="manual",
        help=f"manual: {defaults}, unless set; auto: choose these options so that a draft call takes at most a third of a "
        "verify call (model/cost.py)",
    )
    add("--loss", choices=LOSSES, default="kl", help="loss against the target")
    add("--completions", type=integer(1), default=256, help="drafts per step")
    add("--context-tokens", type=integer(512), default=2048, help="number of sequence tokens per step")
    add(
        "--keep",
        action="store_true",
        help="keep the target's outputs for each sequence in memory, in float16: a third faster on a CPU, but "
        "needs 2 MB per sequence with a vocabulary of 2,048",
    )
    add("--decay", type=number(0, 1, above=True), default=0.9, help="weight of position k is decay^k")
    add(
        "--beta",
        type=number(0, 10, above=True),
        default=0.3,
        help="parameter of the distribution of u inside its interval, Beta(beta, beta)",
    )


def add_drafter_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the settings of `DrafterConfig`."""
    add = parser.add_argument
    add("--kind", choices=KINDS, default=SHAPE["kind"], help="kind of drafter (see model/drafter.py)")
    add("--method", choices=METHODS, default="c", help="prediction method: O-PTP, C-PTP or independent")
    add("--pick", choices=("cdf", "tree"), default="tree", help="rule by which uniforms choose a token")
    parser.set_defaults(embedding="fourier")
    if len(embeddings.EMBEDDINGS) > 1:
        add("--embedding", choices=tuple(embeddings.EMBEDDINGS))
    add("--frequencies", type=integer(1, 64), default=8, help="number of harmonics of the fourier embedding")
    add(
        "--source",
        type=matching(r"\d+(,\d+)*", "comma-separated layer numbers"),
        default=SHAPE["source"],
        help="context layers that provide keys, values and initial weights for the drafter's layers",
    )
    add("--length", type=integer(1, 64), default=8, help="L, the number of positions per draft")
    add(
        "--rank", type=integer(0, 4096), default=SHAPE["rank"], help="rank of the sequential head; 0 means no such head"
    )
    add(
        "--shortlist",
        type=replace(integer(0), accepts=lambda n: n == 0 or n > 1, limits="0 or an integer of at least 2"),
        default=SHAPE["shortlist"],
        help="number of tokens that the drafter may propose: the most frequent tokens in --samples (0: all tokens)",
    )
    add("--lora-rank", type=integer(1, 4096), default=64, help="rank of the adapters of a lora drafter")
    add(
        "--width",
        type=multiple(64, 64, 8192),
        default=128,
        help="width of a separate drafter, which has one layer for each layer in --source",
    )


def check(args: argparse.Namespace) -> None:
    if args.shape == "auto":
        for name in (*SHAPE, "init", "from_target"):
            missing = getattr(args, name) is None or getattr(args, name) is False
            require(missing, f"--{name.replace('_', '-')} must not be given with --shape auto")
        require(args.method == "c", f"--method must be c with --shape auto, got {args.method}")
    args = with_defaults(args)
    learns_tokens = args.method != "o" or args.loss == "ce"
    require(learns_tokens, f"--loss must be ce with --method o, got {args.loss}: this method learns only tokens")
    copies = args.kind == "separate" or not args.from_target
    require(not (args.init and args.from_target), "--init and --from-target must not be given together")
    given = args.kind != "feature" or args.length > 1
    require(
        given,
        f"--length must be at least 2 with --kind feature, got {args.length}: the first token is the target's own",
    )
    require(
        not args.keep or args.kind != "separate",
        "--keep must not be given with --kind separate, which does not use the target's outputs",
    )
    require(
        copies,
        f"--from-target can only be used with --kind separate, got --kind {args.kind}: "
        "other kinds always start from the target",
    )


def layers_of(args: argparse.Namespace) -> tuple[int, ...]:
    """Returns the layers that --source names."""
    return tuple(int(x) for x in args.source.split(","))


def drafter_config(args: argparse.Namespace, target: Config) -> DrafterConfig:
    """Returns the configuration from the settings. Exits if --source does not fit the target."""
    source = tuple(range(target.layers)) if args.kind == "lora" else layers_of(args)
    of_target = args.kind != "separate" or args.from_target
    fits = not of_target or max(source) < target.layers
    require(fits, f"--source must name layers in [0, {target.layers - 1}], got {args.source}")
    own = None
    if args.kind == "separate":
        own = replace(target, layers=len(source)) if of_target else separate_config(target, args.width, len(source))
        source = tuple(range(len(source)))  # Each layer uses its own keys and values.
    shared = {
        k: getattr(args, k)
        for k in ("length", "kind", "method", "pick", "embedding", "frequencies", "rank", "lora_rank")
    }
    shared["shortlist"] = args.shortlist if args.shortlist < target.vocab else 0
    return DrafterConfig(target, source, own=own, **shared)


def with_defaults(args: argparse.Namespace) -> argparse.Namespace:
    """Returns the settings with the default shape where none is given."""
    return argparse.Namespace(**{k: SHAPE[k] if v is None and k in SHAPE else v for k, v in vars(args).items()})


def shaped(args: argparse.Namespace, target: Config) -> argparse.Namespace:
    """Returns the settings with the shape that --shape decides."""
    if args.shape == "manual":
        return with_defaults(args)
    config = cost.chosen(DrafterConfig(target, length=args.length, method=args.method, pick=args.pick))
    shape = {"kind": config.kind, "rank": config.rank, "shortlist": config.shortlist}
    return argparse.Namespace(**vars(args) | shape | {"source": ",".join(map(str, config.source))})


def separate_config(target: Config, width: int, layers: int) -> Config:
    """Returns the sizes of a smaller transformer over the same vocabulary and context."""
    heads = width // 64
    hidden = -(-width * 11 // 4 // 32) * 32
    return Config(target.vocab, width, layers, heads, max(1, heads // 2), 64, hidden, target.rope_theta, target.context)


def batch_sizes(args: argparse.Namespace, target: Target, place: str) -> tuple[int, int]:
    """Returns --context-tokens and --completions, or smaller numbers if the distributions do not fit into memory. Each
    of the two may fill half of the memory for batches.
    """
    half = memory.budget(target, place) // 2
    vocab = target.config.vocab
    tokens = memory.fitting("--context-tokens", args.context_tokens, memory.distribution_bytes(vocab), half, least=512)
    each = args.length * memory.distribution_bytes(min(args.shortlist or vocab, vocab))
    return tokens, memory.fitting("--completions", args.completions, each, half)


class DistillationLoss:
    """Draws a batch and returns its loss, for `fit`."""

    def __init__(self, args: argparse.Namespace, target: Target, drafter: Drafter, samples: Samples, device: str):
        self.args, self.drafter, self.device = args, drafter, device
        self.context_tokens, self.completions = batch_sizes(args, target, device)
        self.outputs = TargetOutputsCache(
            target, args.pick, samples, self.context_tokens, drafter.config.source if args.keep else None
        )
        self.predict = compiled(drafter, device)
        self.beta = torch.distributions.Beta(torch.tensor(args.beta), torch.tensor(args.beta))
        weight = args.decay ** torch.arange(args.length - drafter.config.given, device=device)
        self.weight = weight / weight.mean()

    def __call__(self, rng: np.random.Generator, done: float) -> tuple[Tensor, dict[str, float]]:
        """Returns the loss, and the share of drafts whose first token is right by argmax."""
        a = self.args
        with autocast(self.device, a.precision):
            outputs = self.outputs.draw(rng)
            shape = (len(outputs.ids), max(1, self.completions // len(outputs.ids)))
            starts = rng.integers(outputs.first, outputs.first + GENERATED - a.length + 1, shape)
            inside = self.beta.sample((*shape, a.length, outputs.low.shape[-1])).to(self.device)
            q = draft_batch(outputs, self.drafter, torch.from_numpy(starts).to(self.device), inside)
            logits = self.predict(q.cache, q.last, q.starts, q.u, q.conditions, q.answers, q.given)
        logits = logits.float()
        given = self.drafter.config.given
        answers, p = (x[:, :, given:] for x in (q.answers, q.p))
        places, listed = self.drafter.places(answers), self.drafter.lists(answers)
        losses = LOSSES[a.loss](logits.flatten(0, 2), places.flatten(), p.flatten(0, 2)).view(answers.shape)
        counted = consistent(q, learns_tokens=a.loss == "ce")[:, :, given:]
        if a.loss == "ce":
            counted = counted * listed
        loss = (losses * self.weight * counted).sum() / counted.sum().clamp(min=1)
        right = (logits[:, :, 0].argmax(-1) == places[:, :, 0]) & listed[:, :, 0]
        return loss, {"first_right": right.float().mean().item()}


def consistent(q: DraftBatch, learns_tokens: bool) -> Tensor:
    """Returns a mask [B, N, L] of the positions to learn from.

    If temperature, top-k or top-p reduced a token's probability to 0, no uniforms can lead to it. Later positions would
    then be given uniforms that contradict the text. If `learns_tokens` is true, the token itself is left out too. The
    target's own sequences contain such tokens only because of rounding, but sequences from data and from a student
    often contain them.
    """
    possible = q.possible.cumprod(-1)
    if learns_tokens:
        return possible
    return torch.cat([torch.ones_like(possible[..., :1]), possible[..., :-1]], -1)


def start(args: argparse.Namespace, target: Target, samples: Samples, form: type[Drafter]) -> Drafter:
    """Returns the drafter to start from: the drafter in --init, or else a new one."""
    if args.init:
        return grown_drafter(load_drafter(args.init), drafter_config(args, target.config), form)
    return untrained(args, target, samples, form)


def untrained(
    args: argparse.Namespace, target: Target, samples: Samples | None, form: type[Drafter] = Drafter
) -> Drafter:
    """Returns a new drafter for `target`. Its initial weights depend on its kind and on --from-target. The samples
    decide the shortlist.
    """
    config = drafter_config(args, target.config)
    require(samples is not None or not config.shortlist, f"--shortlist must be 0 without samples, got {args.shortlist}")
    ids = samples.frequent(config.shortlist, target.config.vocab) if config.shortlist else None
    drafter = form(config, None if args.kind == "separate" else target, ids)
    if args.from_target:
        drafter.start_from(target, layers_of(args))
        drafter.fit_uniforms()
    return drafter


def run(args: argparse.Namespace, form: type[Drafter] = Drafter) -> None:
    place = device()
    target = load_target(args.target).requires_grad_(False)
    args = shaped(args, target.config)
    if args.shape == "auto":
        print(cost.summary(drafter_config(args, target.config)), flush=True)
    samples = Samples(args.samples, "train", place)
    drafter = start(args, target, samples, form).to(place)
    target.to(place)
    held = Samples(args.held or args.samples, "held_files", place)
    for part in (samples, held):
        part.check_origin(identity(target))
    batch_loss = DistillationLoss(args, target, drafter, samples, place)
    args.context_tokens, args.completions = batch_loss.context_tokens, batch_loss.completions  # For the log.
    origin = {"target_identity": identity(target), "trained_for": samples.mixture()}
    if args.init:
        origin["init"] = identity(drafter)
    fit(args, drafter, batch_loss, lambda: quick(target, drafter, held), "drafter", origin)

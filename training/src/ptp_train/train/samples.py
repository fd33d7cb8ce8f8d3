"""Writes sequences for distillation. The corpus provides the prompts. The target, the corpus (data) or a drafter
(student) provides the continuations.

Each sequence has random sampling conditions, so that one drafter works under all conditions. Distillation runs the
target over every sequence, including those that it did not write.
"""

import argparse
import json
import os
import pathlib

import numpy as np
import torch

from ..cli.progress import Progress
from ..cli.settings import integer, numbers, require
from ..model import coordinates
from ..model.drafter import Drafter, load_drafter, target_identity_of
from ..model.sampling import shape
from ..model.transformer import Target, identity, load_target
from . import memory
from .device import device, use_threads

GENERATED = 192
"""Number of tokens generated per sequence."""
READ = 64
"""Number of prompt tokens per prefill step. This value is the fastest on a CPU."""
WRITERS = ("teacher", "data", "student")
PROMPTS = ((64, 0.5), (256, 0.3), (704, 0.2))
"""Prompt lengths in tokens, and their shares. There are long prompts because drafters have to see long contexts too."""

MIXTURE = [
    {"share": 0.45, "temperature": 0.7, "top_k": 50, "top_p": 0.9},
    {"share": 0.15, "temperature": 0, "top_k": 0, "top_p": 1},
    {"share": 0.15, "temperature": 1, "top_k": 0, "top_p": 1},
    {"share": 0.25, "temperature": [0.3, 1.2], "top_k": [0, 20, 50, 100], "top_p": [0.8, 1]},
]
"""Distribution of `conditions`, for manifests. Lists are ranges, except for top_k, for which they are the possible
values.
"""


def conditions(count: int, rng: np.random.Generator) -> np.ndarray:
    """Returns random sampling conditions from MIXTURE, float32 [count, 3]: temperature, top_k, top_p."""
    out = np.empty((count, 3), np.float32)
    for row in out:
        z = rng.random()
        if z < 0.45:
            row[:] = 0.7, 50, 0.9
        elif z < 0.6:
            row[:] = 0, 0, 1
        elif z < 0.75:
            row[:] = 1, 0, 1
        else:
            row[:] = rng.uniform(0.3, 1.2), rng.choice([0, 20, 50, 100]), rng.uniform(0.8, 1)
    return out


@torch.no_grad()
def write(
    target: Target, prompts: torch.Tensor, settings: torch.Tensor, generator: torch.Generator, count: int | None = None
) -> dict:
    """Continues prompts [B, P] by `count` (default: GENERATED) tokens with settings [B, 3]: temperature, top_k, top_p.
    Returns {"tokens": [B, P + count], ...}.
    """
    count = count or GENERATED
    b, prompt = prompts.shape
    device = prompts.device
    temperature, top_k, top_p = settings.unbind(-1)
    cache = target.empty_cache(b, prompt + count)
    for start in range(0, prompt, READ):
        logits = target.extend(prompts[:, start : start + READ], cache, start)[:, -1]
    tokens = [prompts]
    for i in range(count):
        p = shape(logits, temperature, top_k, top_p)
        token = coordinates.pick("cdf", p, torch.rand(b, 1, generator=generator).to(device))
        tokens.append(token[:, None])
        if i + 1 < count:
            logits = target.extend(token[:, None], cache, prompt + i)[:, -1]
    return {"tokens": stored(torch.cat(tokens, 1), target.config.vocab)}


@torch.no_grad()
def write_by_student(
    target: Target, drafter: Drafter, prompts: torch.Tensor, settings: torch.Tensor, generator: torch.Generator
) -> dict:
    """Does the same as `write`, but with the drafter alone: it drafts again and again without verification."""
    b, prompt = prompts.shape
    device = prompts.device
    temperature, top_k, top_p = (column[:, None, None] for column in settings.unbind(-1))
    c, length = drafter.config, drafter.config.length
    cache = target.empty_cache(b, prompt + GENERATED)
    ids, known = prompts, 0
    while ids.shape[1] < prompt + GENERATED:
        if c.kind == "separate":
            context = drafter.read(ids)
        else:
            for start in range(known, ids.shape[1], READ):
                target.extend(ids[:, start : min(start + READ, ids.shape[1])], cache, start)
            known = ids.shape[1]
            context = [(keys[:, :, :known], values[:, :, :known]) for keys, values in cache]
        u = torch.rand(b, 1, length, c.coordinates, generator=generator).to(device)
        starts = torch.full((b, 1), ids.shape[1], device=device)
        drafted = drafter.draft(context, ids[:, -1:], starts, u, (temperature, top_p, top_k))[:, 0]
        ids = torch.cat([ids, drafted], 1)
    return {"tokens": stored(ids[:, : prompt + GENERATED], target.config.vocab)}


def stored(ids: torch.Tensor, vocab: int) -> np.ndarray:
    """Converts token ids to the smallest unsigned type that holds the vocabulary."""
    return ids.cpu().numpy().astype(np.uint16 if vocab <= 2**16 else np.uint32)


def check_pair(drafter: pathlib.Path, target: str) -> None:
    """Exits if the drafter was trained for a target with a different `identity`."""
    made_for = target_identity_of(drafter)
    require(made_for == target, f"--drafter must be made for target {target}, but {drafter} was made for {made_for}")


def prompts_from(tokens: np.ndarray, count: int, length: int, rng: np.random.Generator) -> torch.Tensor:
    """Returns `count` random windows of corpus text, int64 [count, length]."""
    starts = rng.integers(0, len(tokens) - length, count)
    return torch.from_numpy(np.stack([tokens[s : s + length] for s in starts]).astype(np.int64))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--target", type=pathlib.Path, default=pathlib.Path("work/target.pt"), help="the target's checkpoint")
    add("--data", type=pathlib.Path, default=pathlib.Path("work/tokens"), help="folder of the encoded corpus")
    add("--out", type=pathlib.Path, default=pathlib.Path("work/samples"), help="folder to write")
    add("--split", default="train", choices=("train", "held_files", "held_packages"), help="split of the corpus")
    add(
        "--writer",
        choices=WRITERS,
        default="teacher",
        help="source of the continuations: the target (teacher), the corpus itself (data), or --drafter (student)",
    )
    add("--drafter", type=pathlib.Path, help="drafter for --writer student")
    add("--sequences", type=integer(1), default=6144, help="number of sequences to write")
    add(
        "--batch",
        type=integer(1),
        default=128,
        help="maximum number of sequences per batch; batches that do not fit into memory become smaller; a different "
        "number changes the samples of the same --seed",
    )
    kind = numbers("temperature", "top_k", "top_p")
    add("--conditions", type=kind, help="TEMPERATURE,TOP_K,TOP_P of all sequences, instead of the random mixture")
    add("--threads", type=integer(1, 1024), default=2, help="CPU threads")
    add("--seed", type=integer(0), default=0, help="seed of all random numbers")


def check(args: argparse.Namespace) -> None:
    student = args.writer == "student"
    require(
        student == bool(args.drafter),
        f"--drafter must be given if, and only if, --writer is student, got {args.drafter}",
    )
    if args.conditions:
        temperature, top_k, top_p = args.conditions
        require(0 <= temperature <= 2, f"--conditions: temperature must be in [0, 2], got {temperature:g}")
        require(
            top_k >= 0 and top_k == int(top_k), f"--conditions: top_k must be an integer of at least 0, got {top_k:g}"
        )
        require(0 < top_p <= 1, f"--conditions: top_p must be in (0, 1], got {top_p:g}")


def prompt_lengths(context: int, split: str, tokens: int) -> tuple[tuple[int, ...], np.ndarray]:
    """Returns the lengths of PROMPTS that fit into `context` and into the split with their continuation, and their
    shares.
    """
    shortest = PROMPTS[0][0] + GENERATED
    require(context >= shortest, f"--target must have a context of at least {shortest} tokens, got {context}")
    require(tokens > shortest, f"--data must have more than {shortest} tokens of {split}, got {tokens}: add text")
    fitting = [(n, share) for n, share in PROMPTS if n + GENERATED <= context and n + GENERATED < tokens]
    shares = np.array([share for _, share in fitting])
    return tuple(n for n, _ in fitting), shares / shares.sum()


def batch_of(args: argparse.Namespace, target: Target, place: str) -> int:
    """Returns --batch, or fewer sequences if KV caches and the logits of a prefill step do not fit into memory."""
    c = target.config
    longest = min(c.context, PROMPTS[-1][0] + GENERATED)
    each = longest * memory.row_bytes(c) + memory.distribution_bytes(c.vocab) + 2 * READ * memory.FLOAT * c.vocab
    return memory.fitting("--batch", args.batch, each, memory.budget(target, place))


def run(args: argparse.Namespace) -> None:
    use_threads(args.threads)
    place = device()
    target = load_target(args.target).to(place)
    drafter = load_drafter(args.drafter).to(place) if args.writer == "student" else None
    origin = identity(target)
    writer = args.writer
    if drafter is not None:
        writer += f" {identity(drafter)}"
        check_pair(args.drafter, origin)
        independent = not drafter.config.given
        require(
            independent,
            f"--drafter must not have kind feature, got {args.drafter}: this kind cannot draft without the target",
        )
    tokens = np.load(args.data / f"{args.split}.npy")
    args.out.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(args.seed)
    fixed = np.array(args.conditions, np.float32) if args.conditions else None
    batch = batch_of(args, target, place)
    lengths, shares = prompt_lengths(target.config.context, args.split, len(tokens))
    used = vars(args) | {"batch": batch}
    with Progress(getattr(args, "logs", None), args.sequences, "sequences", settings=used) as progress:
        for start in range(0, args.sequences, batch):
            count = min(batch, args.sequences - start)
            length = int(rng.choice(lengths, p=shares))
            settings = conditions(count, rng) if fixed is None else np.tile(fixed, (count, 1))
            whole = length + GENERATED if args.writer == "data" else length
            prompts = prompts_from(tokens, count, whole, rng)
            name = args.out / f"{args.split}-{args.seed}-{start:06d}.npz"
            if name.exists():
                known = np.load(name)
                made_by = str(known.get("target", "")) or origin, str(known.get("writer", "teacher"))
                require(
                    made_by == (origin, writer),
                    f"{name} was written for target {made_by[0]} with --writer {made_by[1]}, but this run needs "
                    f"target {origin} with --writer {writer}: remove it, or choose another --out",
                )
            else:
                generator = torch.Generator().manual_seed(args.seed * 1_000_003 + start)
                where = prompts.to(place), torch.from_numpy(settings).to(place), generator
                if args.writer == "data":
                    arrays = {"tokens": stored(prompts, target.config.vocab)}
                elif drafter is not None:
                    arrays = write_by_student(target, drafter, *where)
                else:
                    arrays = write(target, *where)
                partial = name.with_suffix(".partial.npz")
                np.savez(partial, settings=settings, target=np.array(origin), writer=np.array(writer), **arrays)
                os.replace(partial, name)
            progress.update(start + count)
    print(json.dumps({"sequences": args.sequences, "generated_tokens": args.sequences * GENERATED}))

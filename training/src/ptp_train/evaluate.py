"""Measures a pair on sequences that the target wrote from held-out prompts.

A sequence and uniforms drawn inside its tokens' intervals are exactly what coupled decoding with those uniforms produces, so
walking along it with the drafter's completions counts what a server would: tokens per target call and accuracy by position.
"""

import argparse
import json
import pathlib

import numpy as np
import torch

from .batches import Samples, completions, context
from .drafter import Drafter, load_drafter
from .model import Target, load_target
from .samples import GENERATED


@torch.no_grad()
def hits(target: Target, drafter: Drafter, batch: dict, starts: torch.Tensor, seed: int) -> torch.Tensor:
    """Whether each drafted token is the target's: bool [B, N, L] for starts [B, N]."""
    b = len(batch["tokens"])
    length = drafter.config.length
    # one uniform per position of the sequence, whichever completion covers it
    generator = torch.Generator().manual_seed(seed)
    inside = torch.rand(b, GENERATED, generator=generator).to(starts.device)
    first = batch["tokens"].shape[1] - GENERATED
    index = (starts[:, :, None] + torch.arange(length, device=starts.device)).flatten(1) - first
    shaped = inside.gather(1, index).view(*starts.shape, length)
    ids, last, u, answers, settings = completions(batch, starts, length, shaped)
    return drafter(context(target, drafter, ids), last, starts, u, settings).argmax(-1) == answers


def accuracy(target: Target, drafter: Drafter, samples, sequences: int = 8, stride: int = 6) -> dict:
    """Quick figures for a training log: share right by position and mean tokens per call from evenly spread starts."""
    rights = []
    for f in samples.files:
        batch = {k: v[:sequences] for k, v in f.items()}
        first = batch["tokens"].shape[1] - GENERATED
        span = torch.arange(first, first + GENERATED - drafter.config.length + 1, stride, device=batch["tokens"].device)
        starts = span[None].expand(len(batch["tokens"]), -1)
        rights.append(hits(target, drafter, batch, starts, 7).flatten(0, 1))
    right = torch.cat(rights).float()
    return {
        "accuracy": [round(x, 4) for x in right.mean(0).tolist()],
        "tokens_per_call": round(1 + right.cumprod(-1).sum(-1).mean().item(), 4),
    }


def rounded(rows: torch.Tensor) -> list[list[float]]:
    return [[round(x, 6) for x in row] for row in rows.tolist()]


def decode(target: Target, drafter: Drafter, samples, sequences: int) -> dict:
    """Coupled decoding, draft then verify, over at most `sequences` sequences.

    accuracy[k]: share of drafted tokens at position k that are the target's. yield_curve[b]: expected number of right tokens
    before the first wrong one in a draft of b. tokens_per_call: with drafts of full length, the target's own token included.
    """
    length = drafter.config.length
    right_at, prefix_at, calls, tokens, seen = np.zeros(length), np.zeros(length), 0, 0, 0
    for f in samples.files:
        for row in range(len(f["tokens"])):
            if seen >= sequences:
                break
            seen += 1
            batch = {k: v[row : row + 1] for k, v in f.items()}
            first = batch["tokens"].shape[1] - GENERATED
            starts = torch.arange(first, first + GENERATED - length + 1, device=batch["tokens"].device)[None]
            right = hits(target, drafter, batch, starts, 11 + seen)[0].cpu().numpy()
            prefix = right.cumprod(-1)
            right_at += right.mean(0)
            prefix_at += prefix.mean(0)
            at = 0
            while at < len(right):
                step = int(prefix[at].sum()) + 1
                calls, tokens, at = calls + 1, tokens + step, at + step
    conditions = torch.cat([f["settings"] for f in samples.files]).unique(dim=0)
    return {
        "conditions": [dict(zip(("temperature", "top_k", "top_p"), row, strict=True)) for row in rounded(conditions)],
        "sequences": seen,
        "tokens_per_call": round(tokens / calls, 4),
        "accuracy": [round(x, 4) for x in (right_at / seen).tolist()],
        "yield_curve": [0.0, *(round(x, 4) for x in (prefix_at / seen).cumsum().tolist())],
    }


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--target", type=pathlib.Path, default=pathlib.Path("work/target.pt"))
    parser.add_argument("--drafter", type=pathlib.Path, default=pathlib.Path("work/drafter.pt"))
    parser.add_argument("--samples", type=pathlib.Path, default=pathlib.Path("work/samples"))
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("work/evaluation.json"))
    parser.add_argument("--sequences", type=int, default=128)
    parser.add_argument("--threads", type=int, default=1)


def run(args: argparse.Namespace) -> None:
    torch.set_num_threads(args.threads)
    target, drafter = load_target(args.target), load_drafter(args.drafter)
    splits = ("held_files", "held_packages")
    figures = {s: decode(target, drafter, Samples(args.samples, s, "cpu"), args.sequences) for s in splits}
    args.out.write_text(json.dumps(figures, indent=1) + "\n")
    print(json.dumps(figures))

"""Measures what limits a drafter: how often its token at each position is right, and how often it could be.

All figures are for drafts with right tokens before the position. The product of the figures up to a position is
therefore the probability that a draft is right up to this position.

- ceiling: 1 - TV of the two distributions, which no coupling exceeds.
- Gumbel: the best known coupling without communication, with one Gumbel variable for each token (Daliri et al. 2024).
- drafter: its own picks, by the tree of uniforms.
- one token at a time: the same layers, called anew for each token after the target has read the token before. This is
  an autoregressive drafter that always starts from the target's own hidden states.

The difference between `drafter` and `ceiling` is the price of coupling. The difference between `ceiling` and the ceiling
of one token at a time is the price of predicting a block in one call. The rest is due to the capacity of the layers.
"""

import argparse
import json
import pathlib

import torch
from torch import Tensor

from ptp_train.cli.settings import integer, require
from ptp_train.model import coordinates
from ptp_train.model.drafter import Drafter, load_drafter
from ptp_train.model.transformer import Target, load_target
from ptp_train.train.batches import Samples, draft_batch, run_target
from ptp_train.train.device import use_threads
from ptp_train.train.walks import spread, uniforms_inside

LIKELY = 64
"""Number of the target's most probable tokens for which Gumbel coupling is computed. The usual top-k is 50."""
COLUMNS = ("ceiling", "gumbel", "drafter", "one_ceiling", "one_drafter")
TITLES = ("1 - TV", "Gumbel", "drafter", "one token at a time: 1 - TV", "one token at a time: drafter")


def ceiling(p: Tensor, q: Tensor) -> Tensor:
    """Returns 1 - TV [...] of p and q [..., V]."""
    return torch.minimum(p, q).sum(-1)


def gumbel(p: Tensor, q: Tensor) -> Tensor:
    """Returns the probability [R] that p and q [R, V] pick the same token with shared Gumbel variables. Both pick t if the
    exponential variable of t, divided by its probability, is the smallest in p and in q.
    """
    found = []
    for p_row, q_row in zip(p, q, strict=True):
        own, ids = p_row.topk(min(LIKELY, len(p_row)))
        other = q_row[ids]
        both = (own > 0) & (other > 0)
        ratios = torch.maximum(p_row / own[both, None], q_row / other[both, None])
        found.append((1 / ratios.sum(-1)).sum())
    return torch.stack(found)


@torch.no_grad()
def sequence_figures(target: Target, drafter: Drafter, batch: dict, seed: int) -> tuple[Tensor, Tensor]:
    """Returns the figures [columns, N, K] of N drafts of one sequence with K tokens from the drafter's layers, and the
    mask [N, K] of the positions before which all tokens are right.
    """
    c = drafter.config
    outputs = run_target(target, c.pick, batch)
    q = draft_batch(outputs, drafter, spread(outputs, c.length), uniforms_inside(outputs, seed))
    rows = drafter(q.cache, q.last, q.starts, q.u, q.conditions, q.answers, q.given).softmax(-1)
    answers, u, p = (x[0, :, c.given :] for x in (q.answers, q.u, drafter.spread(q.p)))
    own = drafter.spread(rows)[0]
    right = coordinates.pick(c.pick, own, u) == answers
    reached = torch.cat([torch.ones_like(right[:, :1]), right[:, :-1]], -1).cumprod(-1).bool()
    limit = ceiling(p, own)
    best = torch.zeros_like(limit)
    best[reached] = gumbel(p[reached], own[reached])
    # The draft that starts k tokens later predicts the same token at its first position.
    drafts, length = right.shape
    later = torch.arange(drafts)[:, None] + torch.arange(length)
    inside = later < drafts
    later = later.clamp(max=drafts - 1)
    figures = torch.stack([limit, best, right.float(), limit[later, 0], right[later, 0].float()])
    return figures, reached & inside


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--target", type=pathlib.Path, default=pathlib.Path("work/target.pt"))
    add("--drafter", type=pathlib.Path, default=pathlib.Path("work/drafter.pt"))
    add(
        "--samples",
        type=pathlib.Path,
        default=pathlib.Path("work/samples"),
        help="folder of held_files samples; greedy samples are left out",
    )
    add("--sequences", type=integer(1), default=16, help="number of sequences")
    add("--threads", type=integer(1, 1024), default=1, help="CPU threads")
    add("--out", type=pathlib.Path, default=pathlib.Path("work/bounds.json"), help="report to write")


def table(report: dict) -> str:
    """Returns a Markdown table with a row for each position."""
    titles = ("position", "drafts that get there", *TITLES)
    lines = ["| " + " | ".join(titles) + " |", "| " + " | ".join("---" for _ in titles) + " |"]
    for row in report["positions"]:
        cells = (f"{100 * row['reached']:.0f} %", *(f"{row[name]:.3f}" for name in COLUMNS))
        lines.append("| " + " | ".join((str(row["position"]), *cells)) + " |")
    calls = (f"{report['tokens_per_call'][name]:.2f}" for name in COLUMNS)
    return "\n".join([*lines, "| tokens per call | | " + " | ".join(calls) + " |"])


def run(args: argparse.Namespace) -> None:
    use_threads(args.threads)
    target, drafter = load_target(args.target), load_drafter(args.drafter)
    require(drafter.config.method != "o", "--drafter must predict distributions, got method o")
    total, count, drafts, seen = torch.zeros(1), torch.zeros(1), 0, 0
    for f in Samples(args.samples, "held_files", "cpu").files:
        random = f["settings"][:, 0].nonzero()[:, 0].tolist()
        for row in random[: args.sequences - seen]:
            seen += 1
            one = {k: v[row : row + 1] for k, v in f.items()}
            figures, reached = sequence_figures(target, drafter, one, 11 + seen)
            total, count = total + (figures * reached).sum(1), count + reached.sum(0)
            drafts += len(reached)
    require(
        seen > 0, f"--samples must contain held_files sequences at temperatures above 0, got none in {args.samples}"
    )
    means = total / count.clamp(min=1)
    given = drafter.config.given
    shares = means[COLUMNS.index("drafter")].cumprod(0)
    positions = [
        {"position": k + 1 + given, "reached": 1.0 if k == 0 else shares[k - 1].item()}
        | {name: round(means[n, k].item(), 4) for n, name in enumerate(COLUMNS)}
        for k in range(means.shape[1])
    ]
    calls = {name: 1 + given + means[n].cumprod(0).sum().item() for n, name in enumerate(COLUMNS)}
    report = {"sequences": seen, "drafts": drafts, "positions": positions, "tokens_per_call": calls}
    args.out.write_text(json.dumps(report, indent=1) + "\n")
    print(table(report))
    print(json.dumps({"sequences": seen, "drafts": drafts, "tokens_per_call": calls}))

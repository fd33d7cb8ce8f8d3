"""Measures drafters by coupled decoding on the target's own continuations of held-out prompts.

With uniforms drawn inside a sequence's intervals, coupled decoding produces exactly this sequence. A walk along the
sequence with the drafter's drafts therefore counts the tokens per target call in a server that drafts and then
verifies. The count includes the target's own token. In a server that drafts and verifies concurrently, the verify call
returns the first drafted token anyway. A `feature` drafter gets this token almost for free, so its figure in such a
server is lower by nearly 1.
"""

import argparse
import json
import pathlib
from collections import Counter

import numpy as np
import torch
from tokenizers import Tokenizer

from ..data.categories import category
from ..model.drafter import Drafter, load_drafter
from ..model.transformer import Target, load_target
from . import exported
from .batches import Samples, TargetOutputs, draft_batch, run_target
from .device import use_threads
from .integers import in_integers
from .walks import Walk, autoregressive, by_drafter, prompt_lookup, proposals, spread, uniforms_inside

SPLITS = ("held_files", "held_packages")


@torch.no_grad()
def after_miss(drafter: Drafter, outputs: TargetOutputs, seed: int) -> np.ndarray:
    """Returns the correctness, bool [misses, L], of drafts that start where an earlier draft went wrong. The wrong
    token is excluded. Covers all drafts that go wrong within their length.
    """
    length = drafter.config.length
    starts = spread(outputs, 2 * length)
    inside = uniforms_inside(outputs, seed)
    tokens, right = proposals(drafter, outputs, starts, inside)
    accepted = right.cumprod(-1).sum(-1)
    missed = accepted < length
    wrong = tokens.gather(2, accepted.clamp(max=length - 1)[..., None])[..., 0]
    q = draft_batch(outputs, drafter, starts + accepted, inside)
    again = drafter.draft(q.cache, q.last, q.starts, q.u, q.conditions, wrong, q.given)
    return (again == q.answers)[missed].cpu().numpy()


def quick(target: Target, drafter: Drafter, samples: Samples, sequences: int = 8, stride: int = 6) -> dict:
    """Returns figures for a training log, from evenly spaced starts: accuracy by position and tokens per call."""
    rights = []
    for f in samples.files:
        outputs = run_target(target, drafter.config.pick, {k: v[:sequences] for k, v in f.items()})
        starts = spread(outputs, drafter.config.length, stride)
        rights.append(proposals(drafter, outputs, starts, uniforms_inside(outputs, 7))[1].flatten(0, 1))
    right = torch.cat(rights).float()
    return {
        "accuracy": [round(x, 4) for x in right.mean(0).tolist()],
        "tokens_per_call": round(1 + right.cumprod(-1).sum(-1).mean().item(), 4),
    }


@torch.no_grad()
def decode(
    target: Target,
    pick: str,
    walk: Walk,
    samples: Samples,
    sequences: int,
    length: int,
    context: Target | None = None,
    tokenizer: Tokenizer | None = None,
) -> dict:
    """Decodes at most `sequences` sequences with coupling. Each step drafts and then verifies. `run_target` explains
    `context`.

    accuracy[k]: share of drafted tokens at position k that are equal to the target's token.
    yield_curve[b]: expected number of accepted tokens in a draft of b tokens.
    tokens_per_call: tokens per call with drafts of full length, including the target's own token.
    by_category: sequences and tokens per call by the `category` of the continuation. Only with a tokenizer.
    """
    right_at, prefix_at, seen = np.zeros(length), np.zeros(length), 0
    # Number of sequences, tokens and calls of each category.
    sequences_of, tokens, calls = Counter[str](), Counter[str](), Counter[str]()
    for f in samples.files:
        for row in range(min(len(f["tokens"]), sequences - seen)):
            seen += 1
            outputs = run_target(target, pick, {k: v[row : row + 1] for k, v in f.items()}, context)
            right = walk(outputs, 11 + seen)[0]
            prefix = right.cumprod(-1)
            right_at += right.mean(0)
            prefix_at += prefix.mean(0)
            kind = category(tokenizer.decode(outputs.ids[0, outputs.first :].tolist())) if tokenizer else ""
            sequences_of[kind] += 1
            at = 0
            while at < len(right):
                step = int(prefix[at].sum()) + 1
                calls[kind] += 1
                tokens[kind] += step
                at += step
    figures = {
        "sequences": seen,
        "tokens_per_call": round(tokens.total() / calls.total(), 4),
        "accuracy": [round(x, 4) for x in (right_at / seen).tolist()],
        "yield_curve": yield_curve(prefix_at / seen),
    }
    if tokenizer:
        figures["by_category"] = {
            kind: {"sequences": count, "tokens_per_call": round(tokens[kind] / calls[kind], 4)}
            for kind, count in sequences_of.most_common()
        }
    return figures


def yield_curve(prefix: np.ndarray) -> list[float]:
    """Returns the expected number of accepted tokens in drafts of 0 .. L tokens. The argument [L] contains the share of
    drafts whose first 1, 2, ... L tokens are right.
    """
    return [0.0, *(round(x, 4) for x in prefix.cumsum().tolist())]


def after_misses(
    target: Target, drafter: Drafter, samples: Samples, sequences: int, context: Target | None = None
) -> list[float]:
    """Returns the yield curve of drafts after a miss (`after_miss`), over at most `sequences` sequences."""
    rights: list[np.ndarray] = []
    for f in samples.files:
        for row in range(min(len(f["tokens"]), sequences - len(rights))):
            batch = {k: v[row : row + 1] for k, v in f.items()}
            outputs = run_target(target, drafter.config.pick, batch, context)
            rights.append(after_miss(drafter, outputs, 11 + len(rights)))
    return yield_curve(np.concatenate(rights).cumprod(-1).mean(0))


def conditions_of(samples: Samples) -> list[dict]:
    """Returns the distinct sampling conditions of the sequences."""
    rows = torch.cat([f["settings"] for f in samples.files]).unique(dim=0).tolist()
    return [dict(zip(("temperature", "top_k", "top_p"), (round(x, 6) for x in row), strict=True)) for row in rows]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--target", type=pathlib.Path, default=pathlib.Path("work/target.pt"), help="the target's checkpoint")
    add("--drafter", type=pathlib.Path, default=pathlib.Path("work/drafter.pt"), help="the drafter's checkpoint")
    add("--independent", type=pathlib.Path, help="baseline: a drafter trained with --method independent")
    add("--autoregressive", type=pathlib.Path, help="baseline: a drafter trained with --length 1")
    add(
        "--samples",
        type=pathlib.Path,
        nargs="+",
        default=[pathlib.Path("work/samples")],
        help="folders of held-out samples, each with one sampling condition; the manifest gets the figures of the first one",
    )
    add("--out", type=pathlib.Path, default=pathlib.Path("work/evaluation.json"), help="report to write")
    add("--sequences", type=int, default=64, help="number of sequences for each split and condition")
    add(
        "--context-precision",
        choices=("float32", "int8"),
        default="float32",
        help="number format of the target's copy in the drafter; int8 approximates a drafter exported in int8",
    )
    add(
        "--folder",
        type=pathlib.Path,
        help="measure a model folder made from --target instead: bits per byte of the folder and of --target on the "
        "held-out text of --data",
    )
    add(
        "--data",
        type=pathlib.Path,
        default=pathlib.Path("work/tokens"),
        help="folder of the encoded corpus; its tokenizer.json, if there is one, gives figures by category of text",
    )
    add("--json", action="store_true", help="print only the JSON report")
    add("--threads", type=int, default=1, help="CPU threads")


def compared(args: argparse.Namespace, drafter: Drafter) -> dict[str, tuple[str, Walk]]:
    """Returns the picking rule and the drafts of each drafter to measure, keyed by name."""
    c = drafter.config
    walks = {"drafter": (c.pick, by_drafter(drafter)), "prompt_lookup": (c.pick, prompt_lookup(c.length))}
    if args.independent:
        independent = load_drafter(args.independent)
        walks["independent"] = (independent.config.pick, by_drafter(independent))
    if args.autoregressive:
        one = load_drafter(args.autoregressive)
        if one.config.length != 1:
            raise SystemExit(f"--autoregressive must be a drafter with length 1, got {one.config.length}")
        walks["autoregressive"] = (one.config.pick, autoregressive(one, c.length, speculative=False))
        walks["speculative_sampling"] = (one.config.pick, autoregressive(one, c.length, speculative=True))
    return walks


def run(args: argparse.Namespace) -> None:
    use_threads(args.threads)
    if args.folder:
        print(json.dumps(exported.compare(args.folder, load_target(args.target), args.data, args.sequences)))
        return
    target, drafter = load_target(args.target), load_drafter(args.drafter)
    walks = compared(args, drafter)
    context = in_integers(target) if args.context_precision == "int8" else None
    vocabulary = args.data / "tokenizer.json"
    tokenizer = Tokenizer.from_file(str(vocabulary)) if vocabulary.exists() else None
    if tokenizer and tokenizer.get_vocab_size() > target.config.vocab:
        raise SystemExit(
            f"--data must have a tokenizer of at most {target.config.vocab} tokens, the target's, got "
            f"{tokenizer.get_vocab_size()} in {vocabulary}"
        )
    report: dict = {"settings": []}
    for folder in args.samples:
        figures: dict = {"conditions": None}
        for split in SPLITS:
            samples = Samples(folder, split, "cpu")
            figures["conditions"] = conditions_of(samples)
            figures[split] = {}
            for name, (pick, walk) in walks.items():
                figures[split][name] = decode(
                    target, pick, walk, samples, args.sequences, drafter.config.length, context, tokenizer
                )
                if not args.json:
                    print(
                        f"{folder.name} {split} {name}: {figures[split][name]['tokens_per_call']} tokens per call",
                        flush=True,
                    )
            if not drafter.config.given:  # A `feature` drafter finds misses itself.
                curve = after_misses(target, drafter, samples, args.sequences, context)
                figures[split]["drafter"]["yield_curve_after_miss"] = curve
        report["settings"].append(figures)
    report["pick"] = drafter.config.pick
    args.out.write_text(json.dumps(report, indent=1) + "\n")
    print(json.dumps(report))

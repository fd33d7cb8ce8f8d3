"""Writes sequences of a known law to train on: a random walk over the tokens, with momentum.

    x_t = fold(round(x_{t-1} + KEEP (x_{t-1} - x_{t-2}) + DEVIATION e_t)),   e_t ~ N(0, 1)

fold reflects at both ends of the vocabulary. Each token depends strongly on the two before it, but smoothly: tokens that are near
each other say nearly the same of what follows, as places on a map do, and words do not. The lowest perplexity that any model can
reach is known, and is printed.
"""

import argparse
import json
import math
import pathlib

import numpy as np
import torch
from torch import Tensor

from .settings import integer
from .tokenizer import SPLITS

KEEP, DEVIATION = 0.8, 6.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--out", type=pathlib.Path, default=pathlib.Path("work/walk"), help="folder for the tokens, as of `tokenizer`"
    )
    parser.add_argument("--tokens", type=integer(10_000), default=2_000_000, help="to train on; 1 in 50 is held out")
    parser.add_argument("--vocab-size", type=integer(64, 32768), default=128)
    parser.add_argument("--seed", type=integer(0), default=0)


def fold(y: int, vocab: int) -> int:
    """Reflected at 0 and vocab - 1; what is further away than that stays at the end."""
    y = -y if y < 0 else y
    y = 2 * (vocab - 1) - y if y > vocab - 1 else y
    return min(max(y, 0), vocab - 1)


def walk(tokens: int, vocab: int, rng: np.random.Generator) -> np.ndarray:
    """A walk from the middle, int64 [tokens]."""
    noise = rng.normal(scale=DEVIATION, size=tokens).tolist()
    last = before = vocab // 2
    out = np.empty(tokens, np.int64)
    for i in range(tokens):
        before, last = last, fold(round(last + KEEP * (last - before) + noise[i]), vocab)
        out[i] = last
    return out


def law(before: Tensor, last: Tensor, vocab: int) -> Tensor:
    """The probabilities [N, vocab] of what follows two tokens [N], float64."""
    mean = last + KEEP * (last - before).double()
    y = torch.arange(-2 * vocab, 3 * vocab)
    edges = (torch.cat([y, y[-1:] + 1]) - 0.5 - mean[:, None]) / DEVIATION
    p = (0.5 * (1 + torch.erf(edges / math.sqrt(2)))).diff(dim=-1)
    to = torch.tensor([fold(place, vocab) for place in y.tolist()]).expand(len(mean), -1)
    return torch.zeros(len(mean), vocab, dtype=torch.float64).scatter_add_(1, to, p)


def perplexity(ids: np.ndarray, vocab: int) -> float:
    """exp of the mean cross-entropy of the law itself along a walk."""
    x = torch.from_numpy(ids.astype(np.int64))
    before, last, next_one = (x[i : len(x) - 2 + i].split(4096) for i in range(3))
    parts = [law(b, a, vocab).gather(1, n[:, None]) for b, a, n in zip(before, last, next_one, strict=True)]
    return torch.cat(parts).log().mean().neg().exp().item()


def run(args: argparse.Namespace) -> None:
    args.out.mkdir(parents=True, exist_ok=True)
    vocab, facts = args.vocab_size, {}
    for i, split in enumerate(SPLITS):
        count = args.tokens if split == "train" else args.tokens // 50
        ids = walk(count, vocab, np.random.default_rng((args.seed, i)))
        np.save(args.out / f"{split}.npy", ids.astype(np.uint16))
        facts[split] = {"tokens": count} | (
            {} if split == "train" else {"perplexity": round(perplexity(ids, vocab), 4)}
        )
    words = {str(i): i for i in range(vocab)}
    (args.out / "tokenizer.json").write_text(json.dumps({"model": {"vocab": words}}) + "\n", encoding="utf8")
    print(json.dumps(facts))

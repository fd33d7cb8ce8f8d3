"""Writes training sequences from a known distribution: a random walk over the tokens, with or without momentum.

    x_t = fold(round(x_{t-1} + momentum (x_{t-1} - x_{t-2}) + deviation e_t)),   e_t ~ N(0, 1)

fold reflects at both ends of the vocabulary. Each token depends strongly but smoothly on earlier ones: unlike words,
neighbouring tokens have nearly the same successors. The lowest perplexity that any model can reach is known, and
printed.
"""

import argparse
import json
import math
import pathlib
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ptp_train.cli.settings import integer, number
from ptp_train.data.tokenizer import SPLITS


@dataclass(frozen=True)
class Walk:
    """Distribution of the random walk."""

    vocab: int = 128
    momentum: float = 0.0
    deviation: float = 8.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "--out",
        type=pathlib.Path,
        default=pathlib.Path("work/walk"),
        help="folder for the tokens, in the format of `tokenizer`",
    )
    add("--tokens", type=integer(10_000), default=2_000_000, help="number of tokens; 1 in 50 is held out")
    add("--vocab-size", type=integer(64, 4096), default=Walk.vocab)
    add(
        "--momentum", type=number(0, 1), default=Walk.momentum, help="share of the last step that the next step repeats"
    )
    add(
        "--deviation",
        type=number(0, 1000, above=True),
        default=Walk.deviation,
        help="standard deviation in tokens of a step",
    )
    add("--seed", type=integer(0), default=0)


def fold(y: int, vocab: int) -> int:
    """Reflects y at 0 and vocab - 1, as often as necessary."""
    y %= 2 * (vocab - 1)
    return y if y < vocab else 2 * (vocab - 1) - y


def walked(law: Walk, tokens: int, rng: np.random.Generator) -> np.ndarray:
    """Returns a walk from the middle of the vocabulary, int64 [tokens]."""
    noise = rng.normal(scale=law.deviation, size=tokens).tolist()
    last = before = law.vocab // 2
    out = np.empty(tokens, np.int64)
    for i in range(tokens):
        before, last = last, fold(round(last + law.momentum * (last - before) + noise[i]), law.vocab)
        out[i] = last
    return out


def probabilities(law: Walk, before: Tensor, last: Tensor) -> Tensor:
    """Returns the distribution of the next token after two tokens [N], float64 [N, vocab]."""
    mean = last + law.momentum * (last - before).double()
    # The mean is in (-vocab, 2 vocab), and probabilities beyond 9 standard deviations vanish in float64.
    reach = law.vocab + math.ceil(9 * law.deviation)
    y = torch.arange(-reach, law.vocab + reach)
    edges = (torch.cat([y, y[-1:] + 1]) - 0.5 - mean[:, None]) / law.deviation
    p = (0.5 * (1 + torch.erf(edges / math.sqrt(2)))).diff(dim=-1)
    to = torch.tensor([fold(place, law.vocab) for place in y.tolist()]).expand(len(mean), -1)
    return torch.zeros(len(mean), law.vocab, dtype=torch.float64).scatter_add_(1, to, p)


def perplexity(law: Walk, ids: np.ndarray) -> float:
    """Returns exp of the mean cross-entropy of the true distribution along a walk. Apart from chance, this is a lower
    bound for models.
    """
    x = torch.from_numpy(ids.astype(np.int64))
    before, last, next_one = (x[i : len(x) - 2 + i].split(512) for i in range(3))
    parts = [probabilities(law, b, a).gather(1, n[:, None]) for b, a, n in zip(before, last, next_one, strict=True)]
    return torch.cat(parts).log().mean().neg().exp().item()


def run(args: argparse.Namespace) -> None:
    args.out.mkdir(parents=True, exist_ok=True)
    law, facts = Walk(args.vocab_size, args.momentum, args.deviation), {}
    for i, split in enumerate(SPLITS):
        count = args.tokens if split == "train" else args.tokens // 50
        ids = walked(law, count, np.random.default_rng((args.seed, i)))
        np.save(args.out / f"{split}.npy", ids.astype(np.uint16))
        facts[split] = {"tokens": count} | ({} if split == "train" else {"perplexity": round(perplexity(law, ids), 4)})
    words = {str(i): i for i in range(law.vocab)}
    (args.out / "tokenizer.json").write_text(json.dumps({"model": {"vocab": words}}) + "\n", encoding="utf8")
    print(json.dumps(facts))

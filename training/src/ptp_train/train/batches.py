"""Sequences to learn from in memory, and what a drafter is asked about them; for training and measuring alike."""

import pathlib
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from ..model import coordinates
from ..model.drafter import Drafter, Given
from ..model.sampling import shape
from ..model.transformer import KeyValue, Target
from .samples import GENERATED

COMMON = 0.02
"""Share of the sequences from which on a sampling condition is told by itself."""


class Samples:
    """The files of one folder, each a batch of sequences of equal length, in memory."""

    def __init__(self, folder: pathlib.Path, split: str, device: str):
        self.folder, self.origins = folder, set()
        self.files = []
        for path in sorted(p for p in folder.glob(f"{split}-*.npz") if ".partial" not in p.name):
            arrays = np.load(path)
            self.origins.add(str(arrays["target"]) if "target" in arrays else "")
            tokens = torch.from_numpy(arrays["tokens"].astype(np.int32)).to(device)
            self.files.append({"tokens": tokens, "settings": torch.from_numpy(arrays["settings"]).to(device)})
        if not self.files:
            raise SystemExit(f"no samples of split {split!r} in {folder}")
        self.weights = np.array([len(f["tokens"]) for f in self.files], float)
        self.weights /= self.weights.sum()

    def check_origin(self, target: str) -> None:
        """Refuses sequences of another target than the one with this `model.identity`; older files do not say."""
        if others := self.origins - {"", target}:
            raise SystemExit(
                f"{self.folder} holds sequences of target {others.pop()}, this one is {target}: write them anew"
            )

    def mixture(self) -> list[dict]:
        """Shares of the sampling conditions, largest first; those that few sequences have together, by their extremes."""
        rows = torch.cat([f["settings"] for f in self.files]).cpu()
        settings, counts = rows.unique(dim=0, return_counts=True)
        common = counts >= len(rows) * COMMON
        found = [
            told(row, count / len(rows)) for row, count in zip(settings[common], counts[common].tolist(), strict=True)
        ]
        rare = settings[~common]
        if len(rare):
            share = counts[~common].sum().item() / len(rows)
            found.append(told(torch.stack([rare.amin(0), rare.amax(0)], -1), share))
        return sorted(found, key=lambda part: -part["share"])

    def draw(self, tokens: int, rng: np.random.Generator) -> dict:
        """Random sequences of one file, about `tokens` tokens together."""
        f = self.files[rng.choice(len(self.files), p=self.weights)]
        count = together(f, tokens)
        rows = torch.from_numpy(rng.integers(0, len(f["tokens"]), count)).to(f["tokens"].device)
        return {k: v[rows] for k, v in f.items()}

    def groups(self, tokens: int) -> list[dict]:
        """All sequences in fixed batches of about `tokens` tokens, those of a batch of one file."""
        parts = []
        for f in self.files:
            count = together(f, tokens)
            starts = range(0, len(f["tokens"]), count)
            parts += [{k: v[start : start + count] for k, v in f.items()} for start in starts]
        return parts


def told(values: Tensor, share: float) -> dict:
    """Sampling conditions, temperature, top_k and top_p, [3] or [3, 2], as a manifest has them."""
    names = ("temperature", "top_k", "top_p")
    rounded = ([round(x, 2) for x in v] if isinstance(v, list) else round(v, 2) for v in values.tolist())
    return {"share": round(share, 3), **dict(zip(names, rounded, strict=True))}


def together(file: dict, tokens: int) -> int:
    """How many of a file's sequences have about `tokens` tokens."""
    return max(2, tokens // file["tokens"].shape[1])


class Readings:
    """What the target says about batches of sequences: read for each, or once for each of fixed batches and kept in float16."""

    def __init__(self, target: Target, pick: str, samples: Samples, tokens: int, layers: tuple[int, ...] | None):
        """layers: those whose keys and values are kept, None to keep nothing."""
        self.target, self.pick, self.samples, self.tokens, self.layers = target, pick, samples, tokens, layers
        self.groups = samples.groups(tokens) if layers else []
        sizes = np.array([len(g["tokens"]) for g in self.groups], float)
        self.weights = sizes / sizes.sum()
        self.kept: dict[int, Reading] = {}

    def draw(self, rng: np.random.Generator) -> "Reading":
        if not self.layers:
            return read(self.target, self.pick, self.samples.draw(self.tokens, rng))
        n = int(rng.choice(len(self.groups), p=self.weights))
        if n not in self.kept:
            self.kept[n] = halved(read(self.target, self.pick, self.groups[n]), self.layers)
        found = self.kept[n]
        return replace(found, cache=[pair and tuple(x.float() for x in pair) for pair in found.cache])


@dataclass
class Reading:
    """What one call of the target says about sequences: the paper's "one teacher call gives every P_k".

    G = GENERATED tokens of every sequence are written ones, from index `first` on.
    """

    ids: Tensor
    """int64 [B, S]."""
    first: int
    conditions: tuple[Tensor, Tensor, Tensor]
    """temperature, top_p, top_k, each [B, 1, 1]."""
    p: Tensor
    """[B, G, V] the shaped distribution of every written token."""
    low: Tensor
    high: Tensor
    """[B, G, D] the uniforms that pick the written token."""
    cache: list[KeyValue | None]
    """The target's keys and values by layer; of a kept reading None for layers that are not read."""
    features: Tensor
    """[B, G, width] the target's normalised last hidden states, each of the token before a written one."""
    logits: Tensor | None
    """[B, G, V] what its head makes of them; None of a kept reading, as training has no use for them."""


@torch.no_grad()
def read(target: Target, pick: str, batch: dict, context: Target | None = None) -> Reading:
    """Runs the target over a batch of `Samples`. What drafters read (cache, features, logits) is `context`'s, if that is given:
    the target near what a server's context stream has it as, in integers (integers.py)."""
    ids = batch["tokens"].long()
    first = ids.shape[1] - GENERATED
    x, cache = target.read(ids, len(target.layers))
    temperature, top_k, top_p = (column[:, None] for column in batch["settings"].unbind(-1))
    features, logits = target.predict(x[:, first - 1 : -1])
    p = shape(logits.float(), temperature, top_k, top_p)
    low, high = coordinates.interval(pick, p, ids[:, first:])
    conditions = tuple(t[..., None] for t in (temperature, top_p, top_k))
    if context is not None:
        x, cache = context.read(ids, len(context.layers))
        features, logits = context.predict(x[:, first - 1 : -1])
    return Reading(ids, first, conditions, p, low, high, cache, features, logits)


def halved(reading: Reading, layers: tuple[int, ...]) -> Reading:
    """A reading in float16, but for the uniforms, with the keys and values of `layers` only, and no logits."""
    kept = {n: tuple(x.half() for x in pair) for n, pair in enumerate(reading.cache) if n in layers}
    cache = [kept.get(n) for n in range(len(reading.cache))]
    return replace(reading, p=reading.p.half(), features=reading.features.half(), logits=None, cache=cache)


@dataclass
class Question:
    """Completions that a drafter is to make, at N starts of each sequence, and their answers."""

    cache: list[KeyValue]
    last: Tensor
    """[B, N] the token before each completion."""
    starts: Tensor
    """[B, N] index in the sequence of the first token to predict."""
    u: Tensor
    """[B, N, L, D]."""
    conditions: tuple[Tensor, Tensor, Tensor]
    answers: Tensor
    """[B, N, L]."""
    p: Tensor
    """[B, N, L, V]: the target's distributions, given the answers before."""
    given: Given | None
    """What a `feature` drafter's context stream says."""


def ask(reading: Reading, drafter: Drafter, starts: Tensor, inside: Tensor) -> Question:
    """Completions from `starts` [B, N]. inside [B, N, L, D] or [B, G, D] (then one for each written token, whichever
    completion covers it), in [0, 1): where u lies in its token's interval."""
    b, n = starts.shape
    length = drafter.config.length
    written = (starts[:, :, None] + torch.arange(length, device=starts.device) - reading.first).flatten(1)

    def of_written(rows: Tensor) -> Tensor:
        return of_rows(rows, written).view(b, n, length, -1)

    low, high = of_written(reading.low), of_written(reading.high)
    u = coordinates.between(low, high, of_written(inside) if inside.ndim == 3 else inside)
    cache = drafter.read(reading.ids) if drafter.config.kind == "separate" else reading.cache
    answers = reading.ids.gather(1, written + reading.first).view(b, n, length)
    last = reading.ids.gather(1, starts - 1)
    given = None
    if drafter.config.given:
        at = starts - reading.first
        logits = None if reading.logits is None else of_rows(reading.logits, at)
        given = Given(of_rows(reading.features, at), logits)
    return Question(cache, last, starts, u, reading.conditions, answers, of_written(reading.p), given)


def of_rows(rows: Tensor, index: Tensor) -> Tensor:
    """rows [B, G, X] at index [B, N]: float32 [B, N, X]."""
    return rows.gather(1, index[..., None].expand(-1, -1, rows.shape[-1])).float()

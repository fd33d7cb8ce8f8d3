"""Batches for training and evaluation: sequences, the target's outputs for them, and the drafts to make."""

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
"""Minimum share of sequences for which a sampling condition gets its own entry in `mixture`."""


class Samples:
    """The sequences of one folder, in memory. All sequences of a file have the same length."""

    def __init__(self, folder: pathlib.Path, split: str, device: str):
        self.folder, self.origins = folder, set()
        self.files = []
        for path in sorted(p for p in folder.glob(f"{split}-*.npz") if ".partial" not in p.name):
            arrays = np.load(path)
            self.origins.add(str(arrays["target"]) if "target" in arrays else "")
            tokens = torch.from_numpy(arrays["tokens"].astype(np.int32)).to(device)
            self.files.append({"tokens": tokens, "settings": torch.from_numpy(arrays["settings"]).to(device)})
        if not self.files:
            raise SystemExit(
                f"{folder} has no samples of split {split}: run `ptp-train teacher-samples --split {split}`"
            )
        self.weights = np.array([len(f["tokens"]) for f in self.files], float)
        self.weights /= self.weights.sum()

    def check_origin(self, target: str) -> None:
        """Exits if the sequences were written for a target with a different `identity`. Older files do not record the
        identity.
        """
        if others := self.origins - {"", target}:
            raise SystemExit(
                f"{self.folder} must contain sequences of target {target}, got sequences of {others.pop()}: write them again"
            )

    def mixture(self) -> list[dict]:
        """Returns the shares of the sampling conditions, largest first. Rare conditions are merged into one entry of
        ranges.
        """
        rows = torch.cat([f["settings"] for f in self.files]).cpu()
        settings, counts = rows.unique(dim=0, return_counts=True)
        common = counts >= len(rows) * COMMON
        found = [
            entry(row, count / len(rows)) for row, count in zip(settings[common], counts[common].tolist(), strict=True)
        ]
        rare = settings[~common]
        if len(rare):
            share = counts[~common].sum().item() / len(rows)
            found.append(entry(torch.stack([rare.amin(0), rare.amax(0)], -1), share))
        return sorted(found, key=lambda part: -part["share"])

    def frequent(self, count: int, vocab: int) -> Tensor:
        """Returns the `count` most frequent of `vocab` tokens, in ascending order. Of equally frequent tokens, such as
        those that do not occur, the lowest ids come first: most tokenizers give them to frequent tokens.
        """
        counts = sum(torch.bincount(f["tokens"].flatten(), minlength=vocab) for f in self.files)
        return counts.argsort(descending=True, stable=True)[:count].sort().values

    def draw(self, tokens: int, rng: np.random.Generator) -> dict:
        """Returns random sequences of one file, with about `tokens` tokens in total."""
        f = self.files[rng.choice(len(self.files), p=self.weights)]
        count = batch_size(f, tokens)
        rows = torch.from_numpy(rng.integers(0, len(f["tokens"]), count)).to(f["tokens"].device)
        return {k: v[rows] for k, v in f.items()}

    def groups(self, tokens: int) -> list[dict]:
        """Yields all sequences in fixed batches of about `tokens` tokens, each from one file."""
        parts = []
        for f in self.files:
            count = batch_size(f, tokens)
            starts = range(0, len(f["tokens"]), count)
            parts += [{k: v[start : start + count] for k, v in f.items()} for start in starts]
        return parts


def entry(values: Tensor, share: float) -> dict:
    """Returns a manifest entry of sampling conditions: temperature, top_k and top_p [3], or their ranges [3, 2]."""
    names = ("temperature", "top_k", "top_p")
    rounded = ([round(x, 2) for x in v] if isinstance(v, list) else round(v, 2) for v in values.tolist())
    return {"share": round(share, 3), **dict(zip(names, rounded, strict=True))}


def batch_size(file: dict, tokens: int) -> int:
    """Returns the number of a file's sequences that have about `tokens` tokens in total."""
    return max(2, tokens // file["tokens"].shape[1])


class TargetOutputsCache:
    """The target's outputs for batches of sequences. They are computed anew for each batch, or computed once for fixed
    batches and kept in float16.
    """

    def __init__(self, target: Target, pick: str, samples: Samples, tokens: int, layers: tuple[int, ...] | None):
        """layers: context layers whose keys and values are kept. None means that every batch is computed anew."""
        self.target, self.pick, self.samples, self.tokens, self.layers = target, pick, samples, tokens, layers
        self.groups = samples.groups(tokens) if layers else []
        sizes = np.array([len(g["tokens"]) for g in self.groups], float)
        self.weights = sizes / sizes.sum()
        self.kept: dict[int, TargetOutputs] = {}

    def draw(self, rng: np.random.Generator) -> "TargetOutputs":
        if not self.layers:
            return run_target(self.target, self.pick, self.samples.draw(self.tokens, rng))
        n = int(rng.choice(len(self.groups), p=self.weights))
        if n not in self.kept:
            self.kept[n] = halved(run_target(self.target, self.pick, self.groups[n]), self.layers)
        found = self.kept[n]
        return replace(found, cache=[pair and tuple(x.float() for x in pair) for pair in found.cache])


@dataclass
class TargetOutputs:
    """Outputs of one target call over sequences. The call computes every P_k.

    The last G = GENERATED tokens of every sequence, from index `first` on, are its continuation.
    """

    ids: Tensor
    """int64 [B, S]: the sequences."""
    first: int
    conditions: tuple[Tensor, Tensor, Tensor]
    """Temperature, top_p and top_k, each [B, 1, 1]."""
    p: Tensor
    """[B, G, V]: shaped distributions of the continuation."""
    low: Tensor
    high: Tensor
    """Bounds of the uniforms that pick the continuation, each [B, G, D]."""
    cache: list[KeyValue | None]
    """Keys and values of the target by layer. In kept outputs, layers that were left out are None."""
    features: Tensor
    """[B, G, width]: normalised last hidden states that predict the continuation."""
    logits: Tensor | None
    """[B, G, V]: logits of these hidden states. None in kept outputs, because training does not need the logits."""


@torch.no_grad()
def run_target(target: Target, pick: str, batch: dict, context: Target | None = None) -> TargetOutputs:
    """Runs the target over a batch of `Samples`.

    The drafter's inputs (cache, features, logits) come from `context` if it is given. For example, `context` is the
    int8 version of the target (integers.py), because in a server the drafter's copy of the target may be int8.
    """
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
    return TargetOutputs(ids, first, conditions, p, low, high, cache, features, logits)


def halved(outputs: TargetOutputs, layers: tuple[int, ...]) -> TargetOutputs:
    """Returns the outputs in float16, except for the uniforms, which stay float32. Keeps the keys and values of
    `layers` only, and no logits.
    """
    kept = {n: tuple(x.half() for x in pair) for n, pair in enumerate(outputs.cache) if n in layers}
    cache = [kept.get(n) for n in range(len(outputs.cache))]
    return replace(outputs, p=outputs.p.half(), features=outputs.features.half(), logits=None, cache=cache)


@dataclass
class DraftBatch:
    """Drafts to make at N starts of each sequence, with the correct answers."""

    cache: list[KeyValue]
    last: Tensor
    """[B, N]: the token before each draft."""
    starts: Tensor
    """[B, N]: index in the sequence of the first token to predict."""
    u: Tensor
    """[B, N, L, D]: uniforms of the drafts' positions."""
    conditions: tuple[Tensor, Tensor, Tensor]
    answers: Tensor
    """[B, N, L]: correct tokens."""
    p: Tensor
    """[B, N, L, S]: the target's distributions after the previous answers, for the tokens of the drafter's shortlist."""
    possible: Tensor
    """[B, N, L]: true if the target can pick the answer."""
    given: Given | None
    """Outputs of a `feature` drafter's context stream."""


def draft_batch(outputs: TargetOutputs, drafter: Drafter, starts: Tensor, inside: Tensor) -> DraftBatch:
    """Returns the drafts from `starts` [B, N].

    inside, in [0, 1), is the place of each uniform in its token's interval: [B, N, L, D], or [B, G, D] for places that
    belong to tokens and are shared by overlapping drafts.
    """
    b, n = starts.shape
    length = drafter.config.length
    index = (starts[:, :, None] + torch.arange(length, device=starts.device) - outputs.first).flatten(1)

    def at_drafts(rows: Tensor) -> Tensor:
        return of_rows(rows, index).view(b, n, length, -1)

    low, high = at_drafts(outputs.low), at_drafts(outputs.high)
    u = coordinates.between(low, high, at_drafts(inside) if inside.ndim == 3 else inside)
    cache = drafter.read(outputs.ids) if drafter.config.kind == "separate" else outputs.cache
    answers = outputs.ids.gather(1, index + outputs.first).view(b, n, length)
    last = outputs.ids.gather(1, starts - 1)
    given = None
    if drafter.config.given:
        at = starts - outputs.first
        logits = None if outputs.logits is None else of_rows(outputs.logits, at)
        given = Given(of_rows(outputs.features, at), logits)
    own = outputs.p.gather(-1, outputs.ids[:, outputs.first :, None])
    possible = at_drafts(own)[..., 0] > 0
    p = at_drafts(drafter.listed(outputs.p))
    return DraftBatch(cache, last, starts, u, outputs.conditions, answers, p, possible, given)


def of_rows(rows: Tensor, index: Tensor) -> Tensor:
    """Picks rows [B, G, X] at index [B, N]. Returns float32 [B, N, X]."""
    return rows.gather(1, index[..., None].expand(-1, -1, rows.shape[-1])).float()

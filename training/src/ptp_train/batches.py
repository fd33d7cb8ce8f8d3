"""The target's samples in memory, and what a drafter is asked about them; for training and measuring alike."""

import pathlib

import numpy as np
import torch

from .drafter import Drafter
from .model import Target
from .samples import GENERATED


class Samples:
    """The files of one folder, each a batch of sequences of equal length, in memory."""

    def __init__(self, folder: pathlib.Path, split: str, device: str):
        self.files = []
        for path in sorted(p for p in folder.glob(f"{split}-*.npz") if ".partial" not in p.name):
            arrays = np.load(path)
            f = {k: torch.from_numpy(arrays[k]).to(device) for k in ("tokens", "low", "high", "settings")}
            self.files.append(f)
        if not self.files:
            raise SystemExit(f"no samples of split {split!r} in {folder}")
        self.weights = np.array([len(f["tokens"]) for f in self.files], float)
        self.weights /= self.weights.sum()

    def draw(self, tokens: int, rng: np.random.Generator) -> dict:
        """Random sequences of one file, about `tokens` tokens together."""
        f = self.files[rng.choice(len(self.files), p=self.weights)]
        count = max(2, tokens // f["tokens"].shape[1])
        rows = torch.from_numpy(rng.integers(0, len(f["tokens"]), count)).to(f["tokens"].device)
        return {k: v[rows] for k, v in f.items()}


def completions(batch: dict, starts: torch.Tensor, length: int, inside: torch.Tensor) -> tuple:
    """What the drafter is asked and should answer at `starts` [B, N] (index in the sequence).

    inside [B, N, L] in [0, 1): where u lies in its token's interval. Returns ids [B, S] int64, last [B, N],
    u [B, N, L, 1], answers [B, N, L] and conditions (temperature, top_p, top_k), each [B, 1, 1].
    """
    ids = batch["tokens"].long()
    b, n = starts.shape
    prompt = ids.shape[1] - GENERATED
    index = (starts[:, :, None] + torch.arange(length, device=ids.device)).flatten(1)
    low, high = (batch[k].gather(1, index - prompt).view(b, n, length) for k in ("low", "high"))
    # rounding must not reach `high`, where the next token's interval begins
    u = torch.minimum(low + (high - low) * inside, torch.nextafter(high, low)).clamp(0, 1 - 2**-24)
    temperature, top_k, top_p = (x[:, None, None] for x in batch["settings"].unbind(-1))
    answers = ids.gather(1, index).view(b, n, length)
    return ids, ids.gather(1, starts - 1), u[..., None], answers, (temperature, top_p, top_k)


def context(target: Target, drafter: Drafter, ids: torch.Tensor) -> list:
    """Keys and values that the drafter reads, without gradients."""
    with torch.no_grad():
        return target.read(ids, max(drafter.config.source) + 1)[1]

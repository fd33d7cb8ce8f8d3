"""Bits per byte of a target on held-out text. This figure does not depend on the tokenizer."""

import json
import math
import pathlib

import numpy as np
import torch
import torch.nn.functional as F

from ..model.transformer import Target


@torch.no_grad()
def bits_per_byte(model: Target, tokens: np.ndarray, bytes_per_token: float, length: int, count: int) -> float:
    """Returns the mean cross-entropy in bits per byte, over `count` evenly spaced windows of `length` tokens. A short
    text has fewer windows, and a very short text is a single window.
    """
    length = min(length, len(tokens) - 1)
    count = min(count, len(tokens) // length)
    starts = np.linspace(0, len(tokens) - length - 1, count).astype(int)
    place = model.embedding.weight.device
    loss = 0.0
    for s in starts:
        w = torch.from_numpy(tokens[s : s + length + 1].astype(np.int64)).to(place)
        loss += F.cross_entropy(model(w[None, :-1])[0], w[1:]).item()
    return loss / count / math.log(2) / bytes_per_token


def on_held_out(model: Target, data: pathlib.Path, count: int) -> dict:
    """Returns bits per byte on both held-out splits."""
    facts = json.loads((data / "tokens.json").read_text())
    out = {}
    for split in ("held_files", "held_packages"):
        tokens = np.load(data / f"{split}.npy")
        per_token = facts[split]["bytes"] / facts[split]["tokens"]
        out[split] = round(bits_per_byte(model, tokens, per_token, model.config.context // 2, count), 4)
    return out

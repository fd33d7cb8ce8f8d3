"""Walks along the target's own continuations with a drafter's drafts, or those of a method that needs no drafter."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from ..model.drafter import Drafter
from .batches import TargetOutputs, draft_batch
from .samples import GENERATED

Walk = Callable[[TargetOutputs, int], np.ndarray]
"""Drafts from every start, given target outputs and a seed. Returns which drafted tokens are right, bool [B, N, L]."""


def spread(outputs: TargetOutputs, length: int, stride: int = 1) -> Tensor:
    """Returns the starts [B, N] of drafts over the whole continuation, `stride` apart."""
    span = torch.arange(outputs.first, outputs.first + GENERATED - length + 1, stride, device=outputs.ids.device)
    return span[None].expand(len(outputs.ids), -1)


def uniforms_inside(outputs: TargetOutputs, seed: int) -> Tensor:
    """Returns random places of uniforms in their intervals, [B, G, D] in [0, 1). Overlapping drafts share them."""
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(outputs.low.shape, generator=generator).to(outputs.low.device)


@torch.no_grad()
def proposals(drafter: Drafter, outputs: TargetOutputs, starts: Tensor, inside: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the drafted tokens, and a mask of the tokens that are equal to the target's, both [B, N, L]."""
    q = draft_batch(outputs, drafter, starts, inside)
    tokens = drafter.draft(q.cache, q.last, q.starts, q.u, q.conditions, None, q.given)
    return tokens, tokens == q.answers


def by_drafter(drafter: Drafter) -> Walk:
    def walk(outputs: TargetOutputs, seed: int) -> np.ndarray:
        starts = spread(outputs, drafter.config.length)
        return proposals(drafter, outputs, starts, uniforms_inside(outputs, seed))[1].cpu().numpy()

    return walk


def windows(right: np.ndarray, length: int) -> np.ndarray:
    """Expands the correctness of single tokens, bool [B, G], to the correctness of drafts, bool [B, N, L]. For drafters
    that predict one token per call.
    """
    return np.lib.stride_tricks.sliding_window_view(right, length, axis=1)


@torch.no_grad()
def autoregressive(drafter: Drafter, length: int, speculative: bool) -> Walk:
    """Walks with a drafter that predicts one token per call. The drafter is coupled by the same uniforms, or uses
    standard speculative sampling (Leviathan et al. 2023), where a token t of the text is an accepted draft with
    probability min(1, q/p).
    """

    @torch.no_grad()
    def walk(outputs: TargetOutputs, seed: int) -> np.ndarray:
        q = draft_batch(outputs, drafter, spread(outputs, 1), uniforms_inside(outputs, seed))
        if not speculative:
            return windows(
                (drafter.draft(q.cache, q.last, q.starts, q.u, q.conditions) == q.answers)[..., 0].cpu().numpy(), length
            )
        rows = drafter.spread(drafter(q.cache, q.last, q.starts, q.u, q.conditions, q.answers).softmax(-1))
        own, its = (x.gather(-1, q.answers[..., None])[..., 0, 0] for x in (rows, drafter.spread(q.p)))
        chance = torch.rand(own.shape, generator=torch.Generator().manual_seed(seed)).to(own.device)
        return windows((chance * its < own).cpu().numpy(), length)

    return walk


def prompt_lookup(length: int, longest: int = 3) -> Walk:
    """Proposes the tokens that followed the latest earlier occurrence of the last 3 tokens, or else of the last 2, or
    else of the last token (Saxena 2023).
    """

    def walk(outputs: TargetOutputs, seed: int) -> np.ndarray:
        ids = outputs.ids.cpu().numpy()
        starts = range(outputs.first, outputs.first + GENERATED - length + 1)
        out = np.zeros((len(ids), len(starts), length), bool)
        for row, text in enumerate(ids):
            for n, at in enumerate(starts):
                draft = continuation(text[:at], longest, length)
                out[row, n, : len(draft)] = draft == text[at : at + len(draft)]
        return out

    return walk


def continuation(text: np.ndarray, longest: int, length: int) -> np.ndarray:
    """Finds the latest earlier occurrence of the text's last `longest` tokens, or, if there is none, of fewer tokens.
    Returns at most `length` tokens that follow it.
    """
    for size in range(min(longest, len(text) - 1), 0, -1):
        found = (np.lib.stride_tricks.sliding_window_view(text[:-1], size) == text[-size:]).all(1).nonzero()[0]
        if len(found):
            return text[found[-1] + size : found[-1] + size + length]
    return text[:0]

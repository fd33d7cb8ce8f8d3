"""The part of a drafter after its layers: logits of the positions, and picks of their tokens.

A shortlist (FR-Spec, Zhao et al. 2025, arXiv 2502.14856) limits the drafter to S of the V tokens, so its output head
has S rows. The other tokens have probability 0. Tokens are still picked from the whole vocabulary, so the same uniforms
lead to the same token as in the target wherever the two distributions agree.

Shapes in the docstrings: S is V without a shortlist. For the other symbols, see drafter.py.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from . import coordinates
from .drafter_config import DrafterConfig
from .sequential_head import SequentialHead

Pick = Callable[[str, Tensor, Tensor], Tensor]
"""Picks tokens by a rule from probabilities and uniforms, like `coordinates.pick`."""


class DraftHead(nn.Module):
    config: DrafterConfig
    embedding: nn.Embedding
    output: nn.Linear | None
    sequential: SequentialHead | None
    shortlist: Tensor | None
    """[S]: ids in ascending order. None means the whole vocabulary."""
    correction: Tensor | None = None
    """[S, R]: matrix of the sequential head's corrections (`factorise`)."""

    @property
    def head_weight(self) -> Tensor:
        """Output head [S, width]."""
        return self.embedding.weight if self.output is None else self.output.weight

    def listed(self, rows: Tensor) -> Tensor:
        """Returns the columns [..., S] of rows [..., V] that belong to the shortlist."""
        return rows if self.shortlist is None else rows[..., self.shortlist]

    def spread(self, p: Tensor) -> Tensor:
        """Returns probabilities [..., V] from p [..., S]. Tokens outside the shortlist have probability 0."""
        if self.shortlist is None:
            return p
        return p.new_zeros(*p.shape[:-1], self.config.sizes.vocab).index_copy_(-1, self.shortlist, p)

    def places(self, tokens: Tensor) -> Tensor:
        """Returns the index of each of the `tokens` in the shortlist. Other tokens get the index of a listed token."""
        if self.shortlist is None:
            return tokens
        return torch.searchsorted(self.shortlist, tokens).clamp(max=len(self.shortlist) - 1)

    def lists(self, tokens: Tensor) -> Tensor:
        """Returns a mask of the `tokens` in the shortlist."""
        if self.shortlist is None:
            return torch.ones_like(tokens, dtype=torch.bool)
        return self.shortlist[self.places(tokens)] == tokens

    @torch.no_grad()
    def factorise(self) -> None:
        """Prepares `picks` for reading the output head once for all positions (sequential_head.py). Later changes of
        the weights have no effect on the corrections.
        """
        if self.config.factored:
            self.correction = self.head_weight @ self.sequential.out.weight

    def logits(self, hidden: Tensor, last: Tensor, conditions, answers: Tensor | None = None) -> Tensor:
        """Maps hidden [B, N, L, width] to logits [B, N, L, S]. Tokens are picked from their softmax.

        With a sequential head, `answers` [B, N, L] are the tokens picked so far (teacher forcing).
        """
        if self.sequential is not None:
            hidden = self.sequential(hidden, self.embedding(torch.cat([last[..., None], answers[..., :-1]], -1)))
        return self.divided(F.linear(hidden, self.head_weight), conditions[0])

    def picks(
        self,
        hidden: Tensor,
        last: Tensor,
        u: Tensor,
        temperature: Tensor,
        excluded: Tensor | None,
        pick: Pick = coordinates.pick,
    ) -> tuple[Tensor, Tensor]:
        """Picks tokens [..., L] of drafts from hidden [..., L, width]. Returns them with their probabilities.

        last, excluded [...]: see `Drafter.draft`. u [..., L, D]. temperature [..., L]. pick: stands in for
        `coordinates.pick`.
        """
        if self.sequential is None:
            logits = self.divided(F.linear(hidden, self.head_weight), temperature)
            logits = torch.cat([without(logits[..., :1, :], excluded, self.shortlist), logits[..., 1:, :]], -2)
            return self.choose(logits, u, temperature, pick)
        uncorrected = None if self.correction is None else F.linear(hidden, self.head_weight)
        token, state, picked = last, None, []
        for k in range(u.shape[-2]):
            state = self.sequential.step(hidden[..., k, :], self.embedding(token), state)
            if uncorrected is None:
                rows = F.linear(hidden[..., k, :] + self.sequential.out(state), self.head_weight)
            else:
                rows = uncorrected[..., k, :] + F.linear(state, self.correction)
            logits = self.divided(rows, temperature[..., k])
            if k == 0:
                logits = without(logits, excluded, self.shortlist)
            token, probability = self.choose(logits, u[..., k, :], temperature[..., k], pick)
            picked.append((token, probability))
        tokens, probabilities = (torch.stack(column, -1) for column in zip(*picked, strict=True))
        return tokens, probabilities

    def divided(self, rows: Tensor, temperature: Tensor) -> Tensor:
        """Divides rows [..., S] of the output head by the temperature, except with O-PTP, which takes the argmax."""
        if self.config.method == "o":
            return rows
        return rows / torch.where(temperature > 0, temperature, torch.ones_like(temperature))[..., None]

    def choose(
        self, logits: Tensor, u: Tensor, temperature: Tensor, pick: Pick = coordinates.pick
    ) -> tuple[Tensor, Tensor]:
        """Picks tokens [...] from logits [..., S] with the uniforms [..., D] of their own positions. Returns them with
        their probabilities.
        """
        p = self.spread(logits.float().softmax(-1))
        best = logits.argmax(-1)
        token = best if self.shortlist is None else self.shortlist[best]
        if self.config.method != "o":
            token = torch.where(temperature > 0, pick(self.config.pick, p, u), token)
        return token, p.gather(-1, token[..., None])[..., 0]


def without(logits: Tensor, excluded: Tensor | None, ids: Tensor | None = None) -> Tensor:
    """Sets the logits [..., S] of the tokens `excluded` to minus infinity. -1 or None excludes nothing. The shape of
    `excluded` is that of the first dimensions of `logits`. ids [S]: token of each logit, by default its index.
    """
    if excluded is None:
        return logits
    ids = torch.arange(logits.shape[-1], device=logits.device) if ids is None else ids
    which = ids == excluded[..., None]
    return logits.masked_fill(which.view(*excluded.shape, *(1,) * (logits.ndim - excluded.ndim - 1), -1), -torch.inf)

"""Trains a drafter whose positions go through the layers twice. The second pass sees the tokens that the first pass
picked.

The second pass did not pay off: 3.81 tokens per call, against 3.73 with one pass at half the cost. The result cannot be
exported.
"""

import argparse

import torch
from torch import Tensor, nn

from ptp_train.cli.settings import require
from ptp_train.model.drafter import Drafter, DrafterConfig
from ptp_train.model.transformer import Target
from ptp_train.train import distill


class TwoPassDrafter(Drafter):
    """Drafter with two passes. In training, half of the drafts are second passes, which see the answers as the tokens
    of the first pass.
    """

    def __init__(self, config: DrafterConfig, target: Target | None = None, shortlist: Tensor | None = None):
        super().__init__(config, target, shortlist)
        self.from_picked = nn.Linear(config.sizes.width, config.sizes.width, bias=False)
        nn.init.eye_(self.from_picked.weight)
        self.picked: Tensor | None = None
        """[B, N, L]: tokens of the first pass, or -1 for none. None during the first pass."""

    def inputs(self, last: Tensor, u: Tensor, conditions: tuple, feature: Tensor | None) -> Tensor:
        x = super().inputs(last, u, conditions, feature)
        if self.picked is None:
            return x
        token = self.picked[..., :-1, None]
        seen = self.from_picked(self.embedding(token[..., 0].clamp(min=0))) * (token >= 0)
        return torch.cat([x[:, :, :1], x[:, :, 1:] + seen], 2)

    def forward(
        self, cache, last, starts, u, conditions, answers=None, given=None, second: Tensor | None = None
    ) -> Tensor:
        """second [B, N]: true for drafts in their second pass. Random in training."""
        if second is None and self.training:
            second = torch.rand(u.shape[:2], device=u.device) < 0.5
        if second is not None:
            self.picked = torch.where(second[..., None], answers[..., self.config.given :], -1)
        try:
            return super().forward(cache, last, starts, u, conditions, answers, given)
        finally:
            self.picked = None

    def _predicted(self, *arguments, **options) -> Tensor:
        self.picked = super()._predicted(*arguments, **options)
        try:
            return super()._predicted(*arguments, **options)
        finally:
            self.picked = None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    distill.add_arguments(parser)


def check(args: argparse.Namespace) -> None:
    distill.check(args)
    drafted = args.length - (args.kind == "feature")
    require(drafted > 1, f"--length must leave at least two positions to draft, got {args.length}")


def run(args: argparse.Namespace) -> None:
    distill.run(args, TwoPassDrafter)

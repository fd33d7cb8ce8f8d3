"""PTP drafters on PyTorch, straight from the checkpoints of ptp_train.

There are four kinds (ptp_train/model/drafter.py). `reader`, `lora` and `separate` drafters draft the branches that the
drafter service plans. `feature` drafters contain the whole target, so they check the block under verification and draft
a single branch after it. The rules are the same as in the exported graphs (ptp_train/export/graphs).
"""

import pathlib
import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from ptp_train.model.drafter import Drafter
from ptp_train.model.lora import merged
from ptp_train.model.transformer import Target

from .batch import Piece
from .branches import Branch, Drafting
from .checks import Check, checked_rows, settle
from .context import ContextStream
from .gen import common_pb2, engine_pb2
from .graphs import Recording
from .load import Options, device_of, dtype_of
from .memory import allocate
from .pooled import PooledModel
from .sampler import parameters_of
from .uniforms import uniforms
from .varlen import BLOCK


class Curves(NamedTuple):
    """Expected number of correct tokens in drafts of 0, 1, 2 ... tokens."""

    all_branches: list[float]
    after_miss: list[float]
    """Values for branches after a rejected token."""


class DrafterModel(PooledModel):
    """Implements `Model` (model.py) for a drafter."""

    def __init__(
        self,
        drafter: Drafter,
        target: Target | None,
        options: Options,
        context: int,
        curves: Curves,
        record: Callable[[Callable], Recording] | None = None,
    ):
        """target: the drafter's target; None for the kind `separate`. context: maximum number of tokens in a sequence.
        record: see `Drafting`.
        """
        device = device_of(options.device)
        dtype = dtype_of(options.dtype, device)
        self.config, self.curves = drafter.config, curves
        convert(drafter, device, dtype)
        self.target = None if target is None else target.to(device, dtype)
        self.context = ContextStream(drafter, self.target, device)
        self.drafting = Drafting(drafter, self.context, record)
        with torch.inference_mode():
            self.drafting.warm_up()
        super().__init__(
            options,
            kv=allocate(options, self.context.layouts, device, context, BLOCK),
            name=pathlib.Path(options.model).stem,
            context=context,
            vocabulary=self.config.target.vocab,
            dimensions=self.config.coordinates,
            dtype=dtype,
            device=device,
        )
        self.context.use_positions(self.context_length + self.config.length + 1)

    def info(self) -> engine_pb2.GetEngineResponse:
        info = super().info()
        info.drafter.CopyFrom(
            engine_pb2.DrafterFacts(
                checks_blocks=bool(self.config.given),
                max_branch_length=self.config.length,
                yield_curve=self.curves.all_branches,
                yield_curve_after_miss=self.curves.after_miss,
            )
        )
        return info

    @torch.inference_mode()
    def run(self, run: engine_pb2.DraftRun) -> engine_pb2.DraftRunResult:
        began = time.perf_counter_ns()
        pieces = self.pieces(run.slots)
        outputs = self.check(run.slots, pieces) if self.config.given else self.draft(run.slots, pieces)
        return engine_pb2.DraftRunResult(outputs=outputs, run_us=(time.perf_counter_ns() - began) // 1000)

    def extend(self, pieces: list[Piece], wanted: Tensor | None = None) -> Tensor | None:
        """Runs the context stream. From here on, the new rows are valid."""
        hidden = self.context.extend(self.kv, pieces, wanted)
        for piece in pieces:
            self.kv.commit(piece.sequence, piece.tokens)
        return hidden

    def draft(self, slots: list[engine_pb2.DraftSlot], pieces: list[Piece]) -> list[engine_pb2.DraftOutput]:
        """Drafts the requested branches."""
        self.extend(pieces)
        branches = [
            Branch(
                piece.sequence,
                asked.visible,
                asked.visible,
                piece.sequence.tokens[asked.visible - 1],
                asked.length,
                asked.excluded if asked.HasField("excluded") else -1,
                conditions(slot.sampling),
            )
            for slot, piece in zip(slots, pieces, strict=True)
            for asked in slot.branches
        ]
        if not branches:
            return [engine_pb2.DraftOutput() for _ in slots]
        sources = [slot.uniforms for slot in slots for _ in slot.branches]
        u = self.uniforms_after(sources, [b.start for b in branches], max(b.length for b in branches))
        drafted = (
            engine_pb2.DraftedBranch(tokens=tokens, confidences=confidences)
            for tokens, confidences in zip(*self.drafting.draft(self.kv, branches, u), strict=True)
        )
        return [engine_pb2.DraftOutput(branches=[next(drafted) for _ in slot.branches]) for slot in slots]

    def check(self, slots: list[engine_pb2.DraftSlot], pieces: list[Piece]) -> list[engine_pb2.DraftOutput]:
        """Finds the first wrong token of each block, and drafts from there on."""
        checks = [Check(slot, piece) for slot, piece in zip(slots, pieces, strict=True) if slot.HasField("check")]
        hidden = self.extend(pieces, self.context.upload(checked_rows(slots)) if checks else None)
        if checks:
            features, logits = self.target.predict(hidden)
            chosen = settle(checks, logits, self.dimensions)
            self.draft_after(checks, features[self.context.upload(chosen)])
        drafted = iter(checks)
        return [
            engine_pb2.DraftOutput(branches=[next(drafted).result()] if slot.HasField("check") else [])
            for slot in slots
        ]

    def draft_after(self, checks: list[Check], features: Tensor) -> None:
        """Drafts the tokens after the target's own token at the end of each check."""
        branches = [
            Branch(c.sequence, c.visible, c.visible + 1, c.given, c.length - 1, -1, conditions(c.slot.sampling))
            for c in checks
        ]
        longest = max(b.length for b in branches)
        if longest:
            u = self.uniforms_after([c.slot.uniforms for c in checks], [b.start for b in branches], longest)
            drafted = self.drafting.draft(self.kv, branches, u, features)
            for check, tokens, confidences in zip(checks, *drafted, strict=True):
                check.tokens, check.confidences = tokens, confidences

    def uniforms_after(self, sources: list, starts: list[int], length: int) -> Tensor:
        """Returns the uniforms [W, length, D] of the tokens from each index in `starts` [W] on."""
        seeds = np.repeat(np.array([source.seed for source in sources], np.uint64), length)
        firsts = np.array([start + source.offset for start, source in zip(starts, sources, strict=True)])
        positions = (firsts[:, None] + np.arange(length)).ravel()
        return self.context.upload(uniforms(seeds, positions, self.dimensions)).view(len(starts), length, -1)


def convert(drafter: Drafter, device: torch.device, dtype: torch.dtype) -> None:
    """Merges the adapters of a drafter into its layers. Moves the drafter to a device and converts it to `dtype`."""
    # Merging comes first, so that only the sum is rounded.
    drafter.layers = nn.ModuleList(merged(layer) for layer in drafter.layers)
    for name, part in drafter.named_children():
        # Harmonics of the uniforms need more digits than bfloat16 has.
        part.to(device, torch.float32 if name == "uniform" else dtype)
    if drafter.shortlist is not None:
        drafter.shortlist = drafter.shortlist.to(device)
    drafter.factorise()


def conditions(sampling: common_pb2.SamplingParameters) -> tuple[float, float, float]:
    """Returns temperature, top_p and top_k as the drafter sees them."""
    temperature, top_k, top_p, _ = parameters_of(sampling)
    return temperature, top_p, top_k

"""PTP drafters on PyTorch, straight from the checkpoints of ptp_train.

There are four kinds (ptp_train/model/drafter.py). `reader`, `lora` and `separate` drafters draft the branches that the
drafter service plans. `feature` drafters contain the whole target, so they check the block under verification and draft
a single branch after it. The rules are the same as in the exported graphs (ptp_train/export/graphs).
"""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import grpc
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
from .errors import EngineError
from .gen import common_pb2, engine_pb2
from .graphs import Recording
from .kv_pool import KvPool, Layout
from .sampler import parameters_of
from .uniforms import uniforms


@dataclass(frozen=True)
class Limits:
    """Limits and names of a served drafter."""

    name: str
    context: int
    """Maximum number of tokens in a sequence."""
    max_slots: int
    max_sequences: int
    yield_curve: list[float]
    yield_curve_after_miss: list[float]


class DrafterModel:
    """Implements `Model` for a drafter."""

    def __init__(
        self,
        drafter: Drafter,
        target: Target | None,
        dtype: torch.dtype,
        device: torch.device,
        limits: Limits,
        allocate: Callable[[list[Layout]], KvPool],
        record: Callable[[Callable], Recording] | None = None,
    ):
        """target: the drafter's target; None for the kind `separate`. allocate: function that returns the KV pool for the
        layers of the context stream, after the weights are on the device. record: see `Drafting`.
        """
        self.config = drafter.config
        convert(drafter, device, dtype)
        self.target = None if target is None else target.to(device, dtype)
        self.context = ContextStream(drafter, self.target, device)
        self.drafting = Drafting(drafter, self.context, record)
        with torch.inference_mode():
            self.drafting.warm_up()
        self.pool = allocate(self.context.layouts)
        self.limits = replace(limits, context=min(limits.context, self.pool.rows))
        self.context.use_positions(self.limits.context + self.config.length + 1)

    def info(self) -> engine_pb2.GetEngineResponse:
        limits = self.limits
        return engine_pb2.GetEngineResponse(
            model=limits.name,
            vocabulary_size=self.config.target.vocab,
            context_length=limits.context,
            uniforms_per_position=self.config.coordinates,
            max_slots=limits.max_slots,
            max_sequences=limits.max_sequences,
            bytes_per_token=self.pool.bytes_per_token,
            precision=str(self.context.dtype).removeprefix("torch."),
            device=str(self.context.device),
            drafter=engine_pb2.DrafterFacts(
                checks_blocks=bool(self.config.given),
                max_branch_length=self.config.length,
                yield_curve=limits.yield_curve,
                yield_curve_after_miss=limits.yield_curve_after_miss,
            ),
        )

    def open(self, sequence: int) -> None:
        limit = self.limits.max_sequences
        if len(self.pool.sequences) >= limit:
            message = f"the number of open sequences must be at most {limit}: close one, or raise --max-sequences"
            raise EngineError(grpc.StatusCode.RESOURCE_EXHAUSTED, message)
        self.pool.open(sequence)

    def close(self, sequence: int) -> None:
        self.pool.close(sequence)

    def reuse_prefix(self, sequence: int, tokens: Iterable[int]) -> int:
        return self.pool.reuse(sequence, tokens)

    def cache(self) -> common_pb2.PrefixCacheFacts:
        return self.pool.facts()

    @torch.inference_mode()
    def run(self, run: engine_pb2.DraftRun) -> engine_pb2.DraftRunResult:
        began = time.perf_counter_ns()
        pieces = [self.piece(i, slot) for i, slot in enumerate(run.slots)]
        outputs = self.check(run.slots, pieces) if self.config.given else self.draft(run.slots, pieces)
        return engine_pb2.DraftRunResult(outputs=outputs, run_us=(time.perf_counter_ns() - began) // 1000)

    def piece(self, number: int, slot: engine_pb2.DraftSlot) -> Piece:
        """Makes the rows of a slot ready to be written."""
        sequence, at, tokens = self.pool.get(slot.sequence), slot.at, list(slot.tokens)
        if at > len(sequence.tokens) or at + len(tokens) > self.limits.context:
            limits = f"at most {len(sequence.tokens)} and end at row {self.limits.context}"
            message = f"`at` must be {limits}, got rows {at} to {at + len(tokens)}"
            raise EngineError(grpc.StatusCode.OUT_OF_RANGE, message)
        self.pool.prepare(sequence, at, len(tokens))
        return Piece(number, 0, tokens, sequence, at)

    def extend(self, pieces: list[Piece], wanted: Tensor | None = None) -> Tensor | None:
        """Runs the context stream. From here on, the new rows are valid."""
        hidden = self.context.extend(self.pool, pieces, wanted)
        for piece in pieces:
            self.pool.commit(piece.sequence, piece.tokens)
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
            for tokens, confidences in zip(*self.drafting.draft(self.pool, branches, u), strict=True)
        )
        return [engine_pb2.DraftOutput(branches=[next(drafted) for _ in slot.branches]) for slot in slots]

    def check(self, slots: list[engine_pb2.DraftSlot], pieces: list[Piece]) -> list[engine_pb2.DraftOutput]:
        """Finds the first wrong token of each block, and drafts from there on."""
        checks = [Check(slot, piece) for slot, piece in zip(slots, pieces, strict=True) if slot.HasField("check")]
        hidden = self.extend(pieces, self.context.upload(checked_rows(slots)) if checks else None)
        if checks:
            features, logits = self.target.predict(hidden)
            chosen = settle(checks, logits, self.config.coordinates)
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
            drafted = self.drafting.draft(self.pool, branches, u, features)
            for check, tokens, confidences in zip(checks, *drafted, strict=True):
                check.tokens, check.confidences = tokens, confidences

    def uniforms_after(self, sources: list, starts: list[int], length: int) -> Tensor:
        """Returns the uniforms [W, length, D] of the tokens from each index in `starts` [W] on."""
        seeds = np.repeat(np.array([source.seed for source in sources], np.uint64), length)
        firsts = np.array([start + source.offset for start, source in zip(starts, sources, strict=True)])
        positions = (firsts[:, None] + np.arange(length)).ravel()
        return self.context.upload(uniforms(seeds, positions, self.config.coordinates)).view(len(starts), length, -1)


def convert(drafter: Drafter, device: torch.device, dtype: torch.dtype) -> None:
    """Merges the adapters of a drafter into its layers, and moves it to a device in the precision of serving."""
    drafter.layers = nn.ModuleList(merged(layer) for layer in drafter.layers)  # First, so that only the sum is rounded.
    for name, part in drafter.named_children():
        # Harmonics of the uniforms need more digits than bfloat16 has.
        part.to(device, torch.float32 if name == "uniform" else dtype)


def conditions(sampling: common_pb2.SamplingParameters) -> tuple[float, float, float]:
    """Returns temperature, top_p and top_k as the drafter sees them."""
    temperature, top_k, top_p, _ = parameters_of(sampling)
    return temperature, top_p, top_k

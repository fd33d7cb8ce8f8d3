"""Common part of targets and drafters: sequences in one KV pool."""

from collections.abc import Iterable

import grpc
import torch

from .batch import Piece
from .errors import EngineError
from .gen import common_pb2, engine_pb2
from .kv_pool import KvPool
from .load import Options


class PooledModel:
    """Implements `Model` (model.py) except for `run`."""

    def __init__(
        self,
        options: Options,
        kv: KvPool,
        name: str,
        context: int,
        vocabulary: int,
        dimensions: int,
        dtype: torch.dtype,
        device: torch.device,
    ):
        """context: maximum number of tokens in a sequence. dimensions: number of uniforms per position."""
        self.options = options
        self.kv = kv
        self.name = name
        self.context_length = min(context, kv.rows)
        self.vocabulary = vocabulary
        self.dimensions = dimensions
        self.dtype = dtype
        self.device = device

    def info(self) -> engine_pb2.GetEngineResponse:
        return engine_pb2.GetEngineResponse(
            model=self.name,
            vocabulary_size=self.vocabulary,
            context_length=self.context_length,
            uniforms_per_position=self.dimensions,
            max_slots=self.options.max_slots,
            max_sequences=self.options.max_sequences,
            bytes_per_token=self.kv.bytes_per_token,
            precision=str(self.dtype).removeprefix("torch."),
            device=str(self.device),
        )

    def open(self, sequence: int) -> None:
        limit = self.options.max_sequences
        if len(self.kv.sequences) >= limit:
            raise EngineError(
                grpc.StatusCode.RESOURCE_EXHAUSTED,
                f"the number of open sequences must be at most {limit} (--max-sequences), got {limit + 1}",
            )
        self.kv.open(sequence)

    def close(self, sequence: int) -> None:
        self.kv.close(sequence)

    def reuse_prefix(self, sequence: int, tokens: Iterable[int]) -> int:
        return self.kv.reuse(sequence, tokens)

    def cache(self) -> common_pb2.PrefixCacheFacts:
        return self.kv.facts()

    def pieces(self, slots: Iterable[engine_pb2.TargetSlot] | Iterable[engine_pb2.DraftSlot]) -> list[Piece]:
        """Makes the rows of all slots ready to be written, after checking all slots."""
        pieces = [self._piece(number, slot) for number, slot in enumerate(slots)]
        for piece in pieces:
            self.kv.prepare(piece.sequence, piece.at, len(piece.tokens))
        return pieces

    def _piece(self, number: int, slot: engine_pb2.TargetSlot | engine_pb2.DraftSlot) -> Piece:
        sequence, tokens = self.kv.get(slot.sequence), list(slot.tokens)
        valid = len(sequence.tokens)
        if slot.at > valid:
            raise EngineError(grpc.StatusCode.OUT_OF_RANGE, f"`at` must be at most {valid}, got {slot.at}")
        if slot.at + len(tokens) > self.context_length:
            raise EngineError(
                grpc.StatusCode.OUT_OF_RANGE,
                f"the length of a sequence must be at most {self.context_length}, got {slot.at + len(tokens)}",
            )
        return Piece(number, 0, tokens, sequence, slot.at)

"""Sampling parameters of a pass from the slots' messages, and results back to messages."""

from collections.abc import Sequence

import grpc
import numpy as np

from .adjust import Adjustment
from .batch import Piece
from .errors import EngineError
from .gen import engine_pb2
from .sampler import Picks, Plan
from .uniforms import uniforms


def picks_after(piece: Piece, slots: Sequence[engine_pb2.TargetSlot]) -> bool:
    """Returns true if the target picks a token after each token of the piece."""
    return slots[piece.slot].HasField("sampling")


def plan(pieces: list[Piece], slots: Sequence[engine_pb2.TargetSlot], size: int, depth: int) -> Plan:
    """Returns the sampling parameters of the `size` rows of a pass. Rows that need no pick are greedy."""
    numbers = np.zeros((4, size), np.float32)
    numbers[2] = 1
    seeds, positions = np.zeros(size, np.uint64), np.zeros(size, np.int64)
    adjustments: list[Adjustment] = []
    top_count = start = 0
    for piece in pieces:
        slot, count = slots[piece.slot], len(piece.tokens)
        here = slice(start, start + count)
        start += count
        if not picks_after(piece, slots):
            continue
        sampling = slot.sampling
        numbers[:, here] = [[sampling.temperature], [sampling.top_k], [sampling.top_p or 1.0], [sampling.min_p]]
        seeds[here] = slot.uniforms.seed
        positions[here] = np.arange(piece.at + 1, piece.end + 1) + slot.uniforms.offset
        top_count = max(top_count, slot.top_count)
        changes = slot.adjustments[piece.first : piece.first + count]
        adjustments += [Adjustment(here.start + i, change) for i, change in enumerate(changes)]
    temperature, top_k, top_p, min_p = numbers
    u = uniforms(seeds, positions, depth) if temperature.any() else np.zeros((size, depth), np.float32)
    return Plan(temperature, top_k.astype(np.int64), top_p, min_p, u, adjustments, top_count)


class Output:
    """Picks of one slot, which several passes fill."""

    def __init__(self, slot: engine_pb2.TargetSlot):
        count = len(slot.tokens)
        self.picks = np.zeros(count, np.int64)
        self.log_probabilities = np.zeros(count, np.float32)
        self.top_ids = np.zeros((count, slot.top_count), np.int64)
        self.top_log_probabilities = np.zeros((count, slot.top_count), np.float32)

    def fill(self, here: slice, picks: Picks, rows: slice) -> None:
        """Copies the rows of a pass. Raises an EngineError if the model returned no numbers."""
        if not picks.valid[rows].all():
            raise EngineError(grpc.StatusCode.INTERNAL, "the largest logit must be finite, got NaN or infinity")
        top_count = self.top_ids.shape[1]
        self.picks[here] = picks.tokens[rows]
        self.log_probabilities[here] = picks.log_probabilities[rows]
        self.top_ids[here] = picks.top_ids[rows, :top_count]
        self.top_log_probabilities[here] = picks.top_log_probabilities[rows, :top_count]

    def message(self) -> engine_pb2.TargetOutput:
        return engine_pb2.TargetOutput(
            picks=self.picks.tolist(),
            log_probabilities=self.log_probabilities.tolist(),
            top_ids=self.top_ids.ravel().tolist(),
            top_log_probabilities=self.top_log_probabilities.ravel().tolist(),
        )


def fill(outputs: dict[int, Output], pieces: list[Piece], picks: Picks) -> None:
    """Copies the picks of a pass to the outputs of its slots."""
    start = 0
    for piece in pieces:
        count = len(piece.tokens)
        if piece.slot in outputs:
            here = slice(piece.first, piece.first + count)
            outputs[piece.slot].fill(here, picks, slice(start, start + count))
        start += count

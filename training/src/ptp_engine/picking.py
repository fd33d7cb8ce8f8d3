"""Sampling parameters of a pass from the slots' messages, and results back to messages."""

from collections.abc import Sequence

import grpc
import numpy as np

from .adjust import Adjustment
from .batch import Piece, parts
from .errors import EngineError
from .gen import engine_pb2
from .ranked import Parameters
from .sampler import Picks, Plan, parameters_of
from .uniforms import uniforms_of


def picks_after(piece: Piece, slots: Sequence[engine_pb2.TargetSlot]) -> bool:
    """Returns true if the target picks a token after each token of the piece."""
    return slots[piece.slot].HasField("sampling")


def picked_rows(pieces: list[Piece], slots: Sequence[engine_pb2.TargetSlot]) -> list[int]:
    """Returns the tokens of a pass after which the target picks."""
    here = (part for part, piece in parts(pieces) if picks_after(piece, slots))
    return [row for part in here for row in range(part.start, part.stop)]


def plan(pieces: list[Piece], slots: Sequence[engine_pb2.TargetSlot], depth: int) -> Plan:
    """Returns the sampling parameters of the picks after the tokens of `pieces`. The target picks a token after each of these."""
    count = sum(len(piece.tokens) for piece in pieces)
    parameters: list[Parameters] = []
    u = np.zeros((count, depth), np.float32)
    adjustments: list[Adjustment] = []
    top_count = 0
    for rows, piece in parts(pieces):
        slot = slots[piece.slot]
        parameters += [parameters_of(slot.sampling)] * len(piece.tokens)
        if slot.sampling.temperature > 0:
            first = piece.at + 1 + slot.uniforms.offset
            u[rows] = uniforms_of(slot.uniforms.seed, first, len(piece.tokens), depth)
        top_count = max(top_count, slot.top_count)
        if slot.adjustments:
            changes = slot.adjustments[piece.first : piece.first + len(piece.tokens)]
            adjustments += [Adjustment(row, change) for row, change in enumerate(changes, rows.start)]
    return Plan(parameters, u, adjustments, top_count)


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
    """Copies the picks after the tokens of `pieces` to the outputs of their slots."""
    for rows, piece in parts(pieces):
        outputs[piece.slot].fill(slice(piece.first, piece.first + len(piece.tokens)), picks, rows)

"""Checks of blocks under verification, by `feature` drafters.

The context stream is the target itself, so it picks a token after each token of a block with the same uniforms as the
verifier. The block is accepted up to the first pick that differs. This pick is the first token of the draft.
"""

from dataclasses import dataclass, field

import numpy as np
from torch import Tensor

from .batch import Piece
from .gen import engine_pb2
from .kv_pool import Sequence
from .sampler import Draw, Plan, parameters_of
from .uniforms import uniforms


@dataclass
class Check:
    """Check of one slot, and the draft after it."""

    slot: engine_pb2.DraftSlot
    piece: Piece
    accepted: int = 0
    """Number of block tokens that are equal to the target's."""
    given: int = 0
    """The target's own token after the accepted tokens."""
    tokens: list[int] = field(default_factory=list)
    """Drafted tokens after `given`."""
    confidences: list[float] = field(default_factory=list)

    @property
    def sequence(self) -> Sequence:
        return self.piece.sequence

    @property
    def block(self) -> list[int]:
        return self.piece.tokens[len(self.piece.tokens) - self.slot.check.block :]

    @property
    def length(self) -> int:
        """Number of tokens to draft, including `given`."""
        return self.slot.check.length

    @property
    def start(self) -> int:
        """Index of the block's first token in the sequence."""
        return self.piece.end - self.slot.check.block

    @property
    def visible(self) -> int:
        """Number of context rows before `given`."""
        return self.start + self.accepted

    def result(self) -> engine_pb2.DraftedBranch:
        # The first token is the target's own token, apart from rounding.
        return engine_pb2.DraftedBranch(
            accepted=self.accepted, tokens=[self.given, *self.tokens], confidences=[1.0, *self.confidences]
        )


def checked_rows(slots: list[engine_pb2.DraftSlot]) -> np.ndarray:
    """Returns the places, in the concatenated tokens of a run, of the tokens before and in the blocks. They predict the
    tokens of the blocks and one token after each block.
    """
    ends = np.cumsum([len(slot.tokens) for slot in slots])
    rows = [np.arange(e - s.check.block - 1, e) for e, s in zip(ends, slots, strict=True) if s.HasField("check")]
    return np.concatenate(rows)


def settle(checks: list[Check], logits: Tensor, dimensions: int) -> np.ndarray:
    """Picks the target's tokens from the logits [R, V] of `checked_rows`, and compares them with the blocks.

    dimensions: number of uniforms per position. Returns for each check the row that predicted `given`.
    """
    picks = Draw(logits, plan(checks, dimensions)).result().tokens.tolist()
    first, rows = 0, []
    for check in checks:
        block = check.block
        own = picks[first : first + len(block) + 1]
        check.accepted = next((k for k, token in enumerate(block) if own[k] != token), len(block))
        check.given = own[check.accepted]
        rows.append(first + check.accepted)
        first += len(own)
    return np.array(rows)


def plan(checks: list[Check], dimensions: int) -> Plan:
    """Returns the sampling parameters of the rows of all checks."""
    counts = [len(check.block) + 1 for check in checks]
    own = [parameters_of(check.slot.sampling) for check in checks]
    parameters = [row for row, count in zip(own, counts, strict=True) for _ in range(count)]
    sources = [check.slot.uniforms for check in checks]
    seeds = np.array([source.seed for source in sources], np.uint64)
    firsts = [check.start + source.offset for check, source in zip(checks, sources, strict=True)]
    positions = np.concatenate([np.arange(first, first + count) for first, count in zip(firsts, counts, strict=True)])
    u = uniforms(np.repeat(seeds, counts), positions, dimensions)
    return Plan(parameters, u)

"""Interface between the server and a model: `TargetModel` (target.py) or `DrafterModel` (drafter.py)."""

from collections.abc import Sequence
from typing import Protocol

from .gen import common_pb2, engine_pb2


class Model(Protocol):
    """A loaded model with the KV caches of its sequences. All calls come from one thread.

    The server assigns the sequence ids, so they are unique across clients, and checks that sequences are open. Failures
    that a client can understand are `EngineError`s. After a failed run, the rows before each slot's `at` remain valid.
    """

    def info(self) -> engine_pb2.GetEngineResponse:
        """Describes the model."""
        ...

    def open(self, sequence: int) -> None:
        """Opens an empty sequence."""
        ...

    def close(self, sequence: int) -> None:
        """Closes an open sequence. The prefix cache may keep its rows."""
        ...

    def reuse_prefix(self, sequence: int, tokens: Sequence[int]) -> int:
        """Fills an empty sequence with the rows of the longest known prefix of `tokens`. Returns the number of rows."""
        ...

    def cache(self) -> common_pb2.PrefixCacheFacts:
        """Returns content and use of the prefix cache."""
        ...

    def run(
        self, run: engine_pb2.TargetRun | engine_pb2.DraftRun
    ) -> engine_pb2.TargetResult | engine_pb2.DraftRunResult:
        """Runs the slots together and returns their outputs in the same order."""
        ...

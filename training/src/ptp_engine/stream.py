"""Requests of one client stream, and the sequences that belong to it."""

import itertools

import grpc

from .errors import EngineError, is_fatal, not_open
from .gen import engine_pb2
from .log import log
from .model import Model


class Stream:
    """Executes the requests of one stream. All calls come from the model's thread."""

    def __init__(self, model: Model, ids: itertools.count):
        """ids: the ids of sequences in the model, shared by all streams."""
        self.model = model
        self.ids = ids
        self.sequences: dict[int, int | EngineError] = {}
        """Ids in the model by the client's ids, or the reason why a sequence could not be opened."""
        self.handlers = {
            "open": self.open,
            "close": self.close,
            "reuse_prefix": self.reuse_prefix,
            "target": self.run_target,
            "draft": self.run_draft,
        }

    def answer(self, request: engine_pb2.RunRequest) -> engine_pb2.RunResponse | None:
        """Executes a request. Returns None if it is not answered. Raises only fatal errors (`is_fatal`)."""
        kind = request.WhichOneof("kind")
        try:
            if kind is None:
                raise EngineError(grpc.StatusCode.INVALID_ARGUMENT, "one of the fields of `kind` must be set")
            return self.handlers[kind](request)
        except EngineError as error:
            return failure(request.id, error.code, error.message)
        except Exception as error:
            if is_fatal(error):
                raise
            log.exception("a request has failed", extra={"kind": kind})
            if type(error).__name__ == "OutOfMemoryError":
                return failure(request.id, grpc.StatusCode.RESOURCE_EXHAUSTED, "the memory of the device is exhausted")
            return failure(
                request.id, grpc.StatusCode.INTERNAL, "the engine could not execute the request; its log has the reason"
            )

    def end(self) -> None:
        """Closes the stream's sequences."""
        for sequence in self.sequences.values():
            if isinstance(sequence, int):
                self.model.close(sequence)
        self.sequences.clear()

    def open(self, request: engine_pb2.RunRequest) -> None:
        sequence = request.open.sequence
        if sequence in self.sequences:
            log.error("a client has opened a sequence twice", extra={"sequence": sequence})
            return
        own = next(self.ids)
        try:
            self.model.open(own)
        except EngineError as error:  # `open` has no response, so the first request for the sequence fails.
            self.sequences[sequence] = error
        else:
            self.sequences[sequence] = own

    def close(self, request: engine_pb2.RunRequest) -> None:
        own = self.sequences.pop(request.close.sequence, None)
        if isinstance(own, int):
            self.model.close(own)

    def reuse_prefix(self, request: engine_pb2.RunRequest) -> engine_pb2.RunResponse:
        asked = request.reuse_prefix
        rows = self.model.reuse_prefix(self.own(asked.sequence), asked.tokens)
        reused = engine_pb2.ReusedPrefix(rows=rows, cache=self.model.cache())
        return engine_pb2.RunResponse(id=request.id, reused=reused)

    def run_target(self, request: engine_pb2.RunRequest) -> engine_pb2.RunResponse:
        return engine_pb2.RunResponse(id=request.id, target=self.run(request.target))

    def run_draft(self, request: engine_pb2.RunRequest) -> engine_pb2.RunResponse:
        return engine_pb2.RunResponse(id=request.id, draft=self.run(request.draft))

    def run(self, run):
        for slot in run.slots:
            slot.sequence = self.own(slot.sequence)
        return self.model.run(run)

    def own(self, sequence: int) -> int:
        """Returns the model's id of a sequence."""
        own = self.sequences.get(sequence)
        if own is None:
            raise not_open(sequence)
        if isinstance(own, EngineError):
            raise own
        return own


def failure(request: int, code: grpc.StatusCode, message: str) -> engine_pb2.RunResponse:
    return engine_pb2.RunResponse(id=request, error=engine_pb2.RunError(code=code.value[0], message=message))

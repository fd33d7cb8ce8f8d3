"""Errors that clients see."""

import grpc


class EngineError(Exception):
    """Failure of a request. The message names field, limit and value; it must not contain paths or addresses."""

    def __init__(self, code: grpc.StatusCode, message: str):
        super().__init__(message)
        self.code = code
        self.message = message


def not_open(sequence: int) -> EngineError:
    return EngineError(grpc.StatusCode.NOT_FOUND, f"sequence {sequence} is not open")


class ProcessGroupError(Exception):
    """A process of a tensor-parallel group failed, or does not do the same as the others."""


def is_fatal(error: BaseException) -> bool:
    """Returns true if every later request would fail too, as after an error of the GPU."""
    return isinstance(error, ProcessGroupError) or "CUDA error" in str(error) or "NCCL error" in str(error)

"""Errors that clients see, and errors that end the process."""

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
    """A process of a tensor-parallel group has failed, or may differ from the others in its state."""


def is_fatal(error: BaseException) -> bool:
    """Returns true if every later request would fail too, for example after an error of the GPU."""
    return isinstance(error, ProcessGroupError) or "CUDA error" in str(error) or "NCCL error" in str(error)

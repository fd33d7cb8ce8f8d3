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


def is_device_failure(error: BaseException) -> bool:
    """Returns true if the GPU cannot be used anymore by this process. Every later call would fail too."""
    return "CUDA error" in str(error) or "NCCL error" in str(error)

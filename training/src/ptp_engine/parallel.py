"""Tensor parallelism: one target on several devices, with one process per device (torchrun).

Rank 0 serves. It sends every call of the model to the other ranks, which make the same calls, so that all ranks execute
the same passes of the model on the same rows. The calls travel as `RunRequest`s.
"""

import contextlib
import datetime
import os
from collections.abc import Iterable

import torch
import torch.distributed as dist

from .errors import EngineError, ProcessGroupError
from .gen import engine_pb2
from .model import Model

FOREVER = datetime.timedelta(days=3650)
"""Timeout of the other ranks, which wait for a call until a client connects."""
LOADING = datetime.timedelta(hours=2)
"""Timeout of collective operations while a large model loads."""
FRAME = 8192
"""Number of bytes in the first broadcast of a call. Most calls need no second broadcast."""
HEADER = 4
"""Number of bytes that encode the length of a call."""


class Group:
    """The processes that torchrun has started, one per device."""

    def __init__(self, device: str):
        """device: `auto`, `cpu` or `cuda`."""
        self.rank, self.size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
        gpu = device == "cuda" or (device == "auto" and torch.cuda.is_available())
        if gpu:
            torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        dist.init_process_group("nccl" if gpu else "gloo", timeout=LOADING)
        self.control = dist.new_group(backend="gloo", timeout=FOREVER)

    def smallest(self, value: int) -> int:
        """Returns the minimum of the ranks' values."""
        shared = torch.tensor([value])
        dist.all_reduce(shared, dist.ReduceOp.MIN, self.control)
        return int(shared)

    def broadcast(self, data: torch.Tensor) -> None:
        try:
            dist.broadcast(data, 0, self.control)
        except RuntimeError as reason:
            raise ProcessGroupError("the connection to another process of the group is lost") from reason

    def send(self, request: engine_pb2.RunRequest) -> None:
        """Sends a call from rank 0 to the other ranks."""
        message = request.SerializeToString()
        packed = len(message).to_bytes(HEADER, "little") + message
        packed += bytes(max(0, FRAME - len(packed)))
        data = torch.frombuffer(bytearray(packed), dtype=torch.uint8)
        self.broadcast(data[:FRAME])
        if len(data) > FRAME:
            self.broadcast(data[FRAME:])

    def receive(self) -> engine_pb2.RunRequest:
        """Waits for a call of rank 0."""
        first = torch.empty(FRAME, dtype=torch.uint8)
        self.broadcast(first)
        packed = first.numpy().tobytes()
        length = HEADER + int.from_bytes(packed[:HEADER], "little")
        if length > FRAME:
            rest = torch.empty(length - FRAME, dtype=torch.uint8)
            self.broadcast(rest)
            packed += rest.numpy().tobytes()
        return engine_pb2.RunRequest.FromString(packed[HEADER:length])


_joined: Group | None = None


def join(device: str) -> Group:
    """Joins the processes that torchrun has started."""
    global _joined
    _joined = Group(device)
    return _joined


def joined() -> Group | None:
    """Returns the group that this process has joined, or None."""
    return _joined


class Leader:
    """Model of rank 0. Implements `Model`."""

    def __init__(self, model: Model, group: Group):
        self.model, self.group = model, group
        self.cache = model.cache

    def info(self) -> engine_pb2.GetEngineResponse:
        info = self.model.info()
        info.bytes_per_token *= self.group.size  # Each rank has its own part of the heads.
        return info

    def open(self, sequence: int) -> None:
        self.group.send(engine_pb2.RunRequest(open=engine_pb2.OpenSequence(sequence=sequence)))
        self.model.open(sequence)

    def close(self, sequence: int) -> None:
        self.group.send(engine_pb2.RunRequest(close=engine_pb2.CloseSequence(sequence=sequence)))
        self.model.close(sequence)

    def reuse_prefix(self, sequence: int, tokens: Iterable[int]) -> int:
        self.group.send(engine_pb2.RunRequest(reuse_prefix=engine_pb2.ReusePrefix(sequence=sequence, tokens=tokens)))
        return self.model.reuse_prefix(sequence, tokens)

    def run(self, run: engine_pb2.TargetRun) -> engine_pb2.TargetResult:
        self.group.send(engine_pb2.RunRequest(target=run))
        try:
            return self.model.run(run)
        except EngineError:
            raise
        except Exception as reason:  # The other ranks may have executed the run.
            raise ProcessGroupError(str(reason)) from reason


def follow(model: Model, group: Group) -> None:
    """Repeats the calls of rank 0 until the process of rank 0 ends."""
    while True:
        try:
            request = group.receive()
        except ProcessGroupError:
            return
        with contextlib.suppress(EngineError):  # Rank 0 raises the same error, and answers the client.
            call(model, request)


def call(model: Model, request: engine_pb2.RunRequest) -> None:
    match request.WhichOneof("kind"):
        case "open":
            model.open(request.open.sequence)
        case "close":
            model.close(request.close.sequence)
        case "reuse_prefix":
            model.reuse_prefix(request.reuse_prefix.sequence, request.reuse_prefix.tokens)
        case "target":
            model.run(request.target)

"""Passes of the model: as CUDA graphs where possible, which hides the time to launch kernels."""

import logging
from collections.abc import Callable
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from .batch import Shape

log = logging.getLogger("ptp_engine")
Forward = Callable[[Tensor, Shape, bool], Tensor | None]
"""Runs the model on the arrays of a pass. Returns logits [R, V] if the flag is set."""


class Recording(Protocol):
    """A recorded pass. `replay` reads the same memory and writes its result to the same memory every time."""

    def replay(self) -> Tensor | None: ...


class CudaGraph:
    """Records a pass as a CUDA graph."""

    def __init__(self, run: Callable[[], Tensor | None]):
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(2):  # Libraries allocate their workspaces now.
                run()
        torch.cuda.current_stream().wait_stream(stream)
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            self.result = run()

    def replay(self) -> Tensor | None:
        self.graph.replay()
        return self.result


class Passes:
    """Uploads the arrays of passes and runs the model."""

    def __init__(self, forward: Forward, device: torch.device, record: Callable[..., Recording] | None):
        """record: makes recordings of varlen passes. None to run every pass step by step."""
        self.forward = forward
        self.device = device
        self.record = record
        self.recordings: dict[tuple[Shape, bool], tuple[Tensor, Recording]] = {}

    def run(self, flat: np.ndarray, shape: Shape, needs_logits: bool) -> Tensor | None:
        """Returns logits [R, V], or None. The next pass may overwrite them."""
        arrays = torch.from_numpy(flat)
        if self.device.type == "cuda":
            arrays = arrays.pin_memory()
        if self.record is None or shape.queries:
            return self.forward(arrays.to(self.device, non_blocking=True), shape, needs_logits)
        key = (shape, needs_logits)
        if key in self.recordings:
            memory, recording = self.recordings[key]
            memory.copy_(arrays, non_blocking=True)
            return recording.replay()
        memory = arrays.to(self.device, copy=True)
        try:
            recording = self.record(lambda: self.forward(memory, shape, needs_logits))
        except RuntimeError as error:
            log.warning("the model cannot be recorded as a CUDA graph", extra={"reason": str(error).splitlines()[0]})
            self.record = None
            return self.forward(memory, shape, needs_logits)
        self.recordings[key] = memory, recording
        return recording.replay()

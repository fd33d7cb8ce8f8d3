"""Passes of the model: as CUDA graphs where possible, which hides the time to launch kernels."""

from collections.abc import Callable
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from .batch import Shape
from .log import log

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
        """Returns logits [R, V], or None."""
        arrays = torch.from_numpy(flat)
        if self.device.type == "cuda":
            arrays = arrays.pin_memory()
        key = (shape, needs_logits)
        if self.record is not None and not shape.queries and key not in self.recordings:
            self._add(key, arrays)
        if key not in self.recordings:
            return self.forward(arrays.to(self.device, non_blocking=True), shape, needs_logits)
        memory, recording = self.recordings[key]
        memory.copy_(arrays, non_blocking=True)
        logits = recording.replay()
        return None if logits is None else logits.clone()

    def _add(self, key: tuple[Shape, bool], arrays: Tensor) -> None:
        """Records a pass. If that is impossible, all passes run step by step from now on."""
        memory = arrays.to(self.device, copy=True)
        try:
            self.recordings[key] = memory, self.record(lambda: self.forward(memory, *key))
        except RuntimeError as error:
            log.warning("the model cannot be recorded as a CUDA graph", extra={"reason": str(error).splitlines()[0]})
            self.record = None

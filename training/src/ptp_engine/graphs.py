"""Runs functions as CUDA graphs where possible, which hides the time to launch kernels."""

from collections.abc import Callable, Hashable
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from .batch import Shape
from .log import log

Forward = Callable[[Tensor, Shape, bool], Tensor | None]
"""Runs the model on the arrays of a pass. Returns logits [R, V] if the flag is set."""


class Recording(Protocol):
    """A recorded function. `replay` reads the same memory and writes its result to the same memory every time."""

    def replay(self) -> Any: ...


class CudaGraph:
    """Records a function as a CUDA graph."""

    def __init__(self, run: Callable[[], Any]):
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(2):  # Libraries allocate their workspaces now.
                run()
        torch.cuda.current_stream().wait_stream(stream)
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            self.result = run()

    def replay(self) -> Any:
        self.graph.replay()
        return self.result


class Recorded:
    """A function of tensors that runs as CUDA graphs, one for each combination of input shapes and other arguments."""

    def __init__(self, function: Callable, device: torch.device, record: Callable[[Callable], Recording] | None):
        """function: must not wait for the device.

        record: `CudaGraph`, a replacement for it in tests, or None to make no graphs.
        """
        self.function, self.device, self.record = function, device, record
        self.recordings: dict[tuple, tuple[tuple[Tensor, ...], Recording]] = {}

    def __call__(self, inputs: tuple[Tensor, ...], *others: Hashable) -> Any:
        """Uploads the inputs and returns the function's result, which the next call overwrites."""
        key = (*(x.shape for x in inputs), *others)
        if self.record is not None and key not in self.recordings:
            self._add(key, inputs, others)
        if key not in self.recordings:
            return self.function(*(x.to(self.device, non_blocking=True) for x in inputs), *others)
        memory, recording = self.recordings[key]
        for own, given in zip(memory, inputs, strict=True):
            own.copy_(given, non_blocking=True)
        return recording.replay()

    def _add(self, key: tuple, inputs: tuple[Tensor, ...], others: tuple) -> None:
        """Makes a recording. If that is impossible, makes no more."""
        memory = tuple(x.to(self.device, copy=True) for x in inputs)
        try:
            self.recordings[key] = memory, self.record(lambda: self.function(*memory, *others))
        except RuntimeError as error:
            reason = str(error).splitlines()[0]
            log.warning("no CUDA graph can be recorded", extra={"function": self.function.__name__, "reason": reason})
            self.record = None


class Passes:
    """Runs the model on the arrays of passes."""

    def __init__(self, forward: Forward, device: torch.device, record: Callable[[Callable], Recording] | None):
        """record: see `Recorded`. Passes with padded attention, whose shapes differ, are not recorded."""
        self.forward = forward
        self.device = device
        self.recorded = Recorded(forward, device, record)

    def run(self, flat: np.ndarray, shape: Shape, needs_logits: bool) -> Tensor | None:
        """Returns logits [R, V], or None."""
        arrays = torch.from_numpy(flat)
        if self.device.type == "cuda":
            arrays = arrays.pin_memory()
        if shape.queries:
            return self.forward(arrays.to(self.device, non_blocking=True), shape, needs_logits)
        logits = self.recorded((arrays,), shape, needs_logits)
        return None if logits is None else logits.clone()

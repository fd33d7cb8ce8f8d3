"""Functions of tensors that run as CUDA graphs, with one recording for each combination of input shapes."""

from collections.abc import Callable

from torch import Tensor

from .graphs import Recording
from .log import log

Function = Callable[..., tuple[Tensor, ...]]


class Recorded:
    def __init__(self, function: Function, record: Callable[[Callable], Recording]):
        """function: must not wait for the device. record: `CudaGraph`, or a stand-in in tests."""
        self.function, self.record = function, record
        self.recordings: dict[tuple, tuple[tuple[Tensor, ...], Recording]] = {}
        self.possible = True

    def __call__(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Returns the function's result, which the next call overwrites."""
        shapes = tuple(x.shape for x in inputs)
        if self.possible and shapes not in self.recordings:
            self.make(shapes, inputs)
        if not self.possible:
            return self.function(*inputs)
        memory, recording = self.recordings[shapes]
        for own, given in zip(memory, inputs, strict=True):
            own.copy_(given)
        return recording.replay()

    def make(self, shapes: tuple, inputs: tuple[Tensor, ...]) -> None:
        memory = tuple(x.clone() for x in inputs)
        try:
            self.recordings[shapes] = memory, self.record(lambda: self.function(*memory))
        except RuntimeError as error:
            reason = str(error).splitlines()[0]
            log.warning("drafting cannot be recorded as a CUDA graph", extra={"reason": reason})
            self.possible = False

"""A client of EngineService and a model without weights, for tests of the worker."""

import queue
from collections.abc import Iterable, Iterator

import grpc

from ptp_engine.errors import EngineError
from ptp_engine.gen import common_pb2, engine_pb2, engine_pb2_grpc


class StubModel:
    """Picks the successor of each token. Tokens from 100 on fail in different ways."""

    def __init__(self, max_sequences: int = 8):
        self.max_sequences = max_sequences
        self.sequences: set[int] = set()
        self.closed: list[int] = []

    def info(self) -> engine_pb2.GetEngineResponse:
        return engine_pb2.GetEngineResponse(model="stub", vocabulary_size=100, max_sequences=self.max_sequences)

    def open(self, sequence: int) -> None:
        if len(self.sequences) == self.max_sequences:
            raise EngineError(grpc.StatusCode.RESOURCE_EXHAUSTED, f"at most {self.max_sequences} sequences")
        self.sequences.add(sequence)

    def close(self, sequence: int) -> None:
        self.sequences.remove(sequence)
        self.closed.append(sequence)

    def reuse_prefix(self, sequence: int, tokens: Iterable[int]) -> int:
        assert sequence in self.sequences
        return len(list(tokens)) - 1

    def cache(self) -> common_pb2.PrefixCacheFacts:
        return common_pb2.PrefixCacheFacts(lookups=3)

    def run(self, run):
        assert all(slot.sequence in self.sequences for slot in run.slots)
        token = run.slots[0].tokens[0]
        if token == 100:
            raise EngineError(grpc.StatusCode.OUT_OF_RANGE, "`tokens` must be below 100, got 100")
        if token == 101:
            raise ValueError("secret words")
        if token == 102:
            raise RuntimeError("CUDA error: an illegal memory access was encountered\nfurther lines")
        if isinstance(run, engine_pb2.DraftRun):
            return engine_pb2.DraftRunResult(run_us=7)
        outputs = [engine_pb2.TargetOutput(picks=[t + 1 for t in slot.tokens]) for slot in run.slots]
        return engine_pb2.TargetResult(outputs=outputs)


def open_request(sequence: int) -> engine_pb2.RunRequest:
    return engine_pb2.RunRequest(open=engine_pb2.OpenSequence(sequence=sequence))


def close_request(sequence: int) -> engine_pb2.RunRequest:
    return engine_pb2.RunRequest(close=engine_pb2.CloseSequence(sequence=sequence))


def target_request(number: int, *slots: engine_pb2.TargetSlot) -> engine_pb2.RunRequest:
    return engine_pb2.RunRequest(id=number, target=engine_pb2.TargetRun(slots=slots))


def stub_at(address: str) -> engine_pb2_grpc.EngineServiceStub:
    """Returns a blocking client, which waits for the server."""
    channel = grpc.insecure_channel(address)
    grpc.channel_ready_future(channel).result(timeout=300)
    return engine_pb2_grpc.EngineServiceStub(channel)


class Requests:
    """Requests of a stream, which the test sends one after the other."""

    def __init__(self):
        self.queue: queue.SimpleQueue[engine_pb2.RunRequest | None] = queue.SimpleQueue()
        self.send = self.queue.put

    def __iter__(self) -> Iterator[engine_pb2.RunRequest]:
        return iter(self.queue.get, None)

    def end(self) -> None:
        self.queue.put(None)

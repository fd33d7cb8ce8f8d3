"""Measurements of targets."""

import statistics
import time
from collections.abc import Callable

import torch
from ptp_engine.attention import NAME
from ptp_engine.gen import engine_pb2
from ptp_engine.target import TargetModel
from ptp_engine.varlen import name_of

from models import run, slot, text

ROWS = (1, 9, 64)
CONTEXT = 512
CHUNKS = (5, 9, 1, 2)
COMPARED, LENGTH = 24, 128
DRAFT = 8
"""Number of tokens that the drafter drafts, one at a time, while the target verifies."""


def median_ms(work: Callable[[], object], repeats: int) -> float:
    """Returns the median duration of work that ends with a synchronisation, milliseconds."""
    for _ in range(3):
        work()
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
    return round(1000 * statistics.median(times), 3)


def synchronize(target: TargetModel) -> None:
    if target.device.type == "cuda":
        torch.cuda.synchronize()


def self_check(target: TargetModel) -> dict:
    """Compares picks and log-probabilities bit by bit between chunks and batches, like engine/src/batch-invariance.ts, but
    without chunks of mixed lengths.
    """
    tokens = text(target, LENGTH)

    def rows_of(chunk: int, others: int, end: int) -> list[tuple[int, float]]:
        rows = []
        for sequence in range(1 + others):
            target.open(sequence)
        for at in range(0, end, chunk):
            part = tokens[at : min(at + chunk, end)]
            slots = [slot(n, at, part[: max(1, len(part) - n)]) for n in range(1 + others)]
            output = run(target, *slots)[0]
            rows += zip(output.picks, output.log_probabilities, strict=True)
            if others:
                run(target, *(slot(n, at, part) for n in range(1, 1 + others)))
        for sequence in range(1 + others):
            target.close(sequence)
        return rows

    reference = rows_of(LENGTH, 0, LENGTH)
    compared = different = 0
    largest = 0.0
    for chunk in CHUNKS:
        for others in (0, 1, target.options.max_slots - 1):
            for (pick, score), (expected, other) in zip(rows_of(chunk, others, COMPARED), reference, strict=False):
                compared += 1
                different += pick != expected or score != other
                largest = max(largest, abs(score - other))
    return {"rows": compared, "different_rows": different, "largest_difference": largest}


def verify_times(target: TargetModel, repeats: int) -> dict:
    """Returns the durations of runs of ROWS tokens, and of the model's passes in these runs."""
    target.open(1)
    run(target, slot(1, 0, text(target, CONTEXT), picks=False))
    times = {}
    for rows in ROWS:
        request = engine_pb2.TargetRun(slots=[slot(1, CONTEXT, text(target, rows))])
        whole = median_ms(lambda request=request: target.run(request), repeats)
        packed = target.packer.pack(target.pieces(request.slots))

        def forward(packed=packed) -> None:
            with torch.inference_mode():
                target.passes.run(*packed, True)
            synchronize(target)

        times[str(rows)] = {"run_ms": whole, "pass_ms": median_ms(forward, repeats)}
    target.close(1)
    return times


def host_ms(target: TargetModel, repeats: int) -> float:
    """Returns the CPU time of a run of 9 tokens without the model's pass: packing, sampling and messages."""
    target.open(1)
    run(target, slot(1, 0, text(target, CONTEXT), picks=False))
    request = engine_pb2.TargetRun(slots=[slot(1, CONTEXT, text(target, 9))])
    run_pass, logits = target.passes.run, []

    def same_logits(*packed: object) -> torch.Tensor:
        if not logits:
            logits.append(run_pass(*packed))
        return logits[0].clone()

    target.passes.run = same_logits
    times = []
    for _ in range(10 * repeats):
        began = time.thread_time()
        target.run(request)
        times.append(time.thread_time() - began)
    target.passes.run = run_pass
    target.close(1)
    return round(1000 * statistics.median(times), 3)


def generate_ms(target: TargetModel, count: int) -> float:
    """Returns the time per token of `generate` of transformers with its own attention."""
    target.model.set_attn_implementation("sdpa")
    ids = torch.tensor([text(target, CONTEXT)], device=target.device)
    settings = {"do_sample": False, "pad_token_id": 0}

    def decode(tokens: int) -> None:
        with torch.inference_mode():
            target.model.generate(ids, min_new_tokens=tokens, max_new_tokens=tokens, **settings)
        synchronize(target)

    short, long = median_ms(lambda: decode(1), 2), median_ms(lambda: decode(1 + count), 2)
    target.model.set_attn_implementation(NAME)
    return round((long - short) / count, 3)


def bandwidth(device: torch.device) -> float:
    """Returns the number of bytes per second that a copy reads and writes."""
    source = torch.empty((4 << 30) if device.type == "cuda" else (64 << 20), dtype=torch.uint8, device=device)
    target = torch.empty_like(source)

    def copy() -> None:
        target.copy_(source)
        if device.type == "cuda":
            torch.cuda.synchronize()

    return 2 * len(source) / median_ms(copy, 5) * 1000


def weights_read(target: TargetModel) -> int:
    """Returns the bytes of the weights that a pass reads: all but an input embedding that is not also the head."""
    parameters = sum(p.numel() * p.element_size() for p in target.model.parameters())
    tied = target.model.config.tie_word_embeddings
    embedding = target.model.get_input_embeddings().weight
    return parameters - (0 if tied else embedding.numel() * embedding.element_size())


def measure(name: str, target: TargetModel, per_second: float, repeats: int) -> dict:
    passes = target.passes.recorded
    recorded = passes.record, passes.recordings
    kernel = target.kernel
    result = {
        "model": name,
        "kernel": name_of(kernel),
        "block_size": target.kv.block_size,
        "pass_tokens": target.options.pass_tokens if kernel else None,
        "weights_bytes": weights_read(target),
        "bandwidth_limit_ms": round(1000 * weights_read(target) / per_second, 3),
        "self_check": self_check(target),
    }
    result["verify_graphs"] = verify_times(target, repeats) if passes.record else None
    passes.record, passes.recordings = None, {}
    result["verify_eager"] = verify_times(target, repeats)
    passes.record, passes.recordings = recorded
    result["host_ms"] = host_ms(target, repeats)
    result["generate_ms_per_token"] = generate_ms(target, repeats)
    return result


def at_once(drafter: TargetModel, target: TargetModel, repeats: int) -> dict:
    """Measures a draft of single tokens and a verify on two streams: first separately, then concurrently."""
    streams = [torch.cuda.Stream(), torch.cuda.Stream()] if target.device.type == "cuda" else [None, None]
    passes = []
    for model, rows in ((drafter, 1), (target, 9)):
        model.open(1)
        run(model, slot(1, 0, text(model, CONTEXT), picks=False))
        pieces = model.pieces([slot(1, CONTEXT, text(model, rows))])
        passes.append((model, model.packer.pack(pieces)))

    def start(which: int, count: int) -> None:
        model, packed = passes[which]
        with torch.inference_mode(), torch.cuda.stream(streams[which]):
            for _ in range(count):
                model.passes.run(*packed, True)

    def timed(*work: tuple[int, int]) -> float:
        def all_of_it() -> None:
            for which, count in work:
                start(which, count)
            synchronize(target)

        return median_ms(all_of_it, repeats)

    times = {
        "draft_ms": timed((0, DRAFT)),
        "verify_ms": timed((1, 1)),
        "both_ms": timed((0, DRAFT), (1, 1)),
        "draft_tokens": DRAFT,
    }
    for model, _ in passes:
        model.close(1)
    return times

"""Compares graphs that write into their caches with graphs that return new rows, bit by bit."""

import json

import numpy as np
import onnxruntime
import pytest
from onnx_target import Reader, TargetGraph, inputs_of
from tiny_in_place import TINY, write

from ptp_train.export.restore import target_of
from ptp_train.model.transformer import identity

SLOTS = 4
CAPACITY = 64


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("in-place")
    write(folder)
    return folder


@pytest.fixture(scope="module")
def graph(folder):
    return opened(folder)


def opened(folder) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    return onnxruntime.InferenceSession(folder / "target.b4.onnx", options)


def run(graph, caches: list[dict], starts: list[int], slots: list[list[int]], u: np.ndarray, **changes):
    """Runs one slot per cache, from row `start` of the cache on. The other slots of the graph are empty.

    changes: inputs that are not those of `inputs_of`.
    """
    shapes = {i.name: i.shape for i in graph.get_inputs()}
    layers = sum(name.startswith("k") for name in shapes) // SLOTS
    row, vocab = shapes["k0_0"][1:], shapes["bias"][1]
    every = [*zip(starts, slots, strict=True), *[(0, [])] * (SLOTS - len(slots))]
    feeds = inputs_of(every, vocab, 1.0, u) | {"splits": np.array([len(tokens) for _, tokens in every])} | changes
    bound = graph.io_binding()
    for i, (start, tokens) in enumerate(every):
        length = len(tokens)
        for name in [f"{part}{n}" for n in range(layers) for part in "kv"]:
            cache = caches[i][name] if length else np.zeros((0, *row), np.float32)
            feeds[f"{name}_{i}"] = cache[: start + length]
            if length:
                new = cache[start : start + length]
                shape = (1, length, row[0] * row[1])
                bound.bind_output(f"n{name}_{i}", "cpu", 0, np.float32, shape, new.ctypes.data)
    for name, value in feeds.items():
        bound.bind_input(name, "cpu", 0, value.dtype, value.shape, value.ctypes.data)
    for name in ("pick", "logprob"):
        bound.bind_output(name)
    graph.run_with_iobinding(bound)
    return [value.numpy() for value in bound.get_outputs()[-2:]]


def test_writing_into_the_caches_changes_no_bit(graph):
    """Runs three sequences of different lengths alone and together, next to an empty slot, with a rollback."""
    packed = TargetGraph(TINY / "target.b1.onnx")
    rng = np.random.default_rng(0)
    lengths = [[5, 2], [17, 4], [33, 9]]
    texts = [rng.integers(1, 257, sum(each)).tolist() for each in lengths]
    us = [rng.random((sum(each), packed.uniforms), np.float32) for each in lengths]
    caches = [empty_cache(graph) for _ in lengths]
    expected = []
    for (first, _), text, u, cache in zip(lengths, texts, us, caches, strict=True):
        reader = Reader(packed)
        [head] = packed.run([(reader, text[:first])], 1.0, u[:first])
        expected.append(packed.run([(reader, text[first:])], 1.0, u[first:])[0])
        assert_same(run(graph, [cache], [0], [text[:first]], u[:first]), head)
        run(graph, [cache], [first], [[1, 2, 3]], u[:3])  # The next run writes over these rows.
    starts = [first for first, _ in lengths]
    slots = [text[first:] for text, first in zip(texts, starts, strict=True)]
    joint = np.concatenate([u[first:] for u, first in zip(us, starts, strict=True)])
    assert_same(
        run(graph, caches, starts, slots, joint), [np.concatenate(part) for part in zip(*expected, strict=True)]
    )


def empty_cache(graph) -> dict[str, np.ndarray]:
    names = [name for name in (i.name for i in graph.get_inputs()) if name[0] in "kv" and name.endswith("_0")]
    return {name[:-2]: np.full((CAPACITY, 2, 16), np.nan, np.float32) for name in names}


def test_a_single_token_in_int8_has_the_same_bits_as_with_a_second_one(tmp_path):
    write(tmp_path, "int8")
    assert json.loads((tmp_path / "manifest.json").read_text())["target"]["min_rows"] == 1
    graph = opened(tmp_path)
    rng = np.random.default_rng(0)
    starts = [5, 17, 33]
    rows = len(starts)
    tokens = rng.integers(1, 257, (rows, max(starts) + 1)).tolist()
    u = rng.random((max(starts), TargetGraph(TINY / "target.b1.onnx").uniforms), np.float32)
    caches = [empty_cache(graph) for _ in starts]
    for cache, text, start in zip(caches, tokens, starts, strict=True):
        run(graph, [cache], [0], [text[:start]], u[:start])
    pairs, singles = [[text[-1], 0] for text in tokens], [[text[-1]] for text in tokens]

    expected = run(graph, caches, starts, pairs, u[:rows], rows=np.arange(0, 2 * rows, 2))
    written = [{name: cache[name][start].copy() for name in cache} for cache, start in zip(caches, starts, strict=True)]
    assert_same(run(graph, caches, starts, singles, u[:rows], rows=np.arange(rows)), expected)
    for i, (cache, start) in enumerate(zip(caches, starts, strict=True)):
        alone = run(graph, [cache], [start], [singles[i]], u[[i, i]], rows=np.array([0, 0]))
        assert_same([part[:1] for part in alone], [part[i : i + 1] for part in expected])
        for name, row in written[i].items():
            assert cache[name][start].tobytes() == row.tobytes()


def test_the_target_can_be_restored(folder):
    assert identity(target_of(folder)) == identity(target_of(TINY))


def assert_same(got, expected) -> None:
    for one, other in zip(got, expected, strict=True):
        assert one.tobytes() == other.tobytes()

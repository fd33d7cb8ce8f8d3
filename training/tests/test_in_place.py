"""Compares graphs that write into their caches with graphs that return new rows, bit by bit."""

import json

import numpy as np
import onnxruntime
import pytest
from onnx_target import Reader, TargetGraph, inputs_of
from tiny_in_place import TINY, write

from ptp_train.export.graphs.graph import WeightFile
from ptp_train.export.graphs.target_graph import target_graph
from ptp_train.export.model_folder import Form, write_folder
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
    row, vocab, kind = shapes["k0_0"][1:], shapes["bias"][1], cache_type(graph)
    every = [*zip(starts, slots, strict=True), *[(0, [])] * (SLOTS - len(slots))]
    feeds = inputs_of(every, vocab, 1.0, u) | {"splits": np.array([len(tokens) for _, tokens in every])} | changes
    bound = graph.io_binding()
    for i, (start, tokens) in enumerate(every):
        length = len(tokens)
        for name in [f"{part}{n}" for n in range(layers) for part in "kv"]:
            cache = caches[i][name] if length else np.zeros((0, *row), kind)
            feeds[f"{name}_{i}"] = cache[: start + length]
            if length:
                new = cache[start : start + length]
                shape = (1, length, row[0] * row[1])
                bound.bind_output(f"n{name}_{i}", "cpu", 0, kind, shape, new.ctypes.data)
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


def cache_type(graph) -> type:
    [kind] = {i.type for i in graph.get_inputs() if i.name == "k0_0"}
    return {"tensor(float)": np.float32, "tensor(float16)": np.float16}[kind]


def empty_cache(graph) -> dict[str, np.ndarray]:
    names = [name for name in (i.name for i in graph.get_inputs()) if name[0] in "kv" and name.endswith("_0")]
    return {name[:-2]: np.full((CAPACITY, 2, 16), np.nan, cache_type(graph)) for name in names}


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


def test_float16_caches_of_int8_targets_give_the_same_bits_in_any_chunks_and_change_less_than_int8_does(tmp_path):
    """Reads a text in chunks, with rejected tokens in between, and compares it with graphs that have float32 caches of
    exact length: in int8, and in float32.
    """
    write(tmp_path / "half", "int8")
    tokenizer = (TINY / "tokenizer.json").read_bytes()
    write_folder(target_of(TINY), None, tokenizer, tmp_path / "packed", "tiny", {}, Form("int8"), slots=(1,))
    about = json.loads((tmp_path / "half" / "manifest.json").read_text())
    assert about["target"]["cache_type"] == "float16"
    sizes = about["sizes"]
    row = 2 * sizes["kv_heads"] * sizes["head_width"]
    assert about["bytes_per_token"] == {"target": sizes["layers"] * row * 2}
    graph, packed = opened(tmp_path / "half"), TargetGraph(tmp_path / "packed" / "target.b1.onnx")
    text = list(tokenizer[:48])
    count = len(text)
    u = np.zeros((count, packed.uniforms), np.float32)
    greedy = {"temperature": np.zeros((count, 1), np.float32)}
    whole, chunked = empty_cache(graph), empty_cache(graph)
    expected = run(graph, [whole], [0], [text], u, **greedy)
    start = 0
    for size in (1, 2, 9, 1, 35):
        tokens, part = text[start : start + size], slice(start, start + size)
        changes = {"temperature": np.zeros((max(2, size), 1), np.float32)}
        changes["rows"] = np.arange(max(2, size)) % size
        got = run(graph, [chunked], [start], [tokens], u[: max(2, size)], **changes)
        assert_same([each[:size] for each in got], [each[part] for each in expected])
        start += size
        if start < count:
            run(graph, [chunked], [start], [[1, 2, 3]], u[:3])  # The next run writes over these rows.
    assert start == count
    for name, rows in whole.items():
        assert chunked[name][:count].tobytes() == rows[:count].tobytes()
    by_int8, by_float32 = ([*p.run([(Reader(p), text)])[0]] for p in (packed, TargetGraph(TINY / "target.b1.onnx")))
    assert (by_int8[0] == expected[0]).mean() > 0.95
    change, change_by_int8 = (np.abs(by_int8[1] - other[1]).mean() for other in (expected, by_float32))
    assert 0 < change < change_by_int8 / 2


def test_a_graph_for_one_slot_cannot_have_float16_caches(tmp_path):
    with pytest.raises(ValueError, match="slots must be at least 2 for float16 caches, got 1"):
        target_graph(target_of(TINY), WeightFile(tmp_path / "weights", "int8"), 1, "tree", True, True)


def test_the_target_can_be_restored(folder):
    assert identity(target_of(folder)) == identity(target_of(TINY))


def assert_same(got, expected) -> None:
    for one, other in zip(got, expected, strict=True):
        assert one.tobytes() == other.tobytes()

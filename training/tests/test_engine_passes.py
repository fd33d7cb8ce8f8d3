"""Tests passes with a fixed number of tokens, as on a GPU, with a varlen kernel in simple code and without recording."""

import inspect

import numpy as np
import pytest
import torch
from reference_varlen import varlen_attn
from tiny_hf import VOCABULARY, run, save_tiny, slot, tiny_target

from ptp_engine import varlen
from ptp_engine.attention import Layer
from ptp_engine.batch import Piece, passes
from ptp_engine.kernel_check import largest_difference
from ptp_engine.kv_pool import Layout, Sequence
from ptp_engine.load import Options, load
from ptp_engine.target import TargetModel

torch.set_num_threads(1)
RANDOM = {"temperature": 1.0, "top_p": 0.9}
PROMPT = (np.arange(1, 60) * 11 % VOCABULARY).tolist()


@pytest.fixture(autouse=True)
def simple_varlen(monkeypatch):
    monkeypatch.setattr(varlen, "varlen_attn", lambda: varlen_attn)
    monkeypatch.setattr(varlen, "parameters", lambda: frozenset(inspect.signature(varlen_attn).parameters))


class Record:
    """Stands for a CUDA graph: runs the same function, from the same memory to the same memory."""

    made = 0

    def __init__(self, forward):
        Record.made += 1
        self.forward = forward
        self.result = forward()

    def replay(self):
        result = self.forward()
        return None if result is None else self.result.copy_(result)


def fixed_target(folder, kernel, **options) -> TargetModel:
    settings = Options(model=folder, device="cpu", context_length=384, kv_megabytes=8, pass_tokens=16, **options)
    target = TargetModel(load(settings), settings, kernel, Record)
    target.warm_up()
    return target


@pytest.mark.parametrize("kernel", varlen.KERNELS)
@pytest.mark.parametrize("family", ["gemma3", "mixtral"])
def test_results_equal_padded_attention(kernel, family, tmp_path):
    folder = save_tiny(family, tmp_path)
    fixed, plain = fixed_target(folder, kernel), tiny_target(folder)
    made = Record.made
    for target in (fixed, plain):
        for number in (1, 2, 3):
            target.open(number)
    runs = [
        [slot(1, 0, PROMPT[:50]), slot(2, 0, PROMPT[5:15], RANDOM)],
        [slot(1, 50, PROMPT[50:58], RANDOM), slot(2, 8, PROMPT[:4], RANDOM, top_count=2), slot(3, 0, PROMPT, RANDOM)],
        [slot(3, 30, PROMPT[1:3], RANDOM)],
    ]
    for slots in runs:
        for ours, theirs in zip(run(fixed, *slots), run(plain, *slots), strict=True):
            assert list(ours.picks) == list(theirs.picks)
            assert list(ours.top_ids) == list(theirs.top_ids)
            np.testing.assert_allclose(ours.log_probabilities, theirs.log_probabilities, atol=2e-5)
    assert Record.made == made  # Both kinds of passes, with and without logits, have been recorded at the start.


@pytest.mark.parametrize("kernel", varlen.KERNELS)
def test_the_kernel_check_accepts_correct_kernels(kernel):
    assert largest_difference(kernel, layer_of(window=None), torch.device("cpu")) < 1e-4
    assert largest_difference(kernel, layer_of(window=20), torch.device("cpu")) < 1e-4


def test_the_kernel_check_finds_a_wrong_kernel(monkeypatch):
    monkeypatch.setattr(varlen, "varlen_attn", lambda: lambda *args, **options: varlen_attn(*args, **options) * 1.1)
    layers, device = [layer_of(window=None)], torch.device("cpu")
    assert not any(varlen.is_correct(kernel, layers, device) for kernel in varlen.KERNELS)


def test_kernels_without_block_tables_gather_the_rows(monkeypatch):
    """Checks the choice with the signature of PyTorch 2.11."""

    def older(query, key, value, cu_seq_q, cu_seq_k, max_q, max_k, *, scale=None, window_size=(-1, -1)):
        options = {"scale": scale, "window_size": window_size, "enable_gqa": True, "num_splits": 1}
        return varlen_attn(query, key, value, cu_seq_q, cu_seq_k, max_q, max_k, **options)

    monkeypatch.setattr(varlen, "varlen_attn", lambda: older)
    monkeypatch.setattr(varlen, "parameters", lambda: frozenset(inspect.signature(older).parameters))
    layers, device = [layer_of(window=None), layer_of(window=20)], torch.device("cpu")
    assert [kernel.paged for kernel in varlen.KERNELS if varlen.is_correct(kernel, layers, device)] == [False]


def layer_of(window: int | None) -> Layer:
    return Layer(Layout(2, 16, 16, torch.float32), 4, 0.25, window, None, None)


def test_passes_split_pieces():
    pieces = [
        Piece(n, 0, list(range(count)), Sequence(), at) for n, (count, at) in enumerate([(3, 0), (12, 5), (1, 2)])
    ]
    made = [[(p.slot, p.first, p.tokens, p.at) for p in part] for part in passes(pieces, capacity=8, most=2)]
    assert made == [
        [(0, 0, [0, 1, 2], 0), (1, 0, [0, 1, 2, 3, 4], 5)],
        [(1, 5, [5, 6, 7, 8, 9, 10, 11], 10), (2, 0, [0], 2)],
    ]


def test_passes_that_cannot_be_recorded_run_step_by_step(tmp_path):
    def fail(forward):
        raise RuntimeError("operation not permitted when stream is capturing")

    settings = Options(model=save_tiny("llama", tmp_path), device="cpu", context_length=64, kv_megabytes=8)
    target = TargetModel(load(settings), settings, varlen.KERNELS[0], fail)
    target.open(1)
    assert len(run(target, slot(1, 0, PROMPT[:5], RANDOM))[0].picks) == 5

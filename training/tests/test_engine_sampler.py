"""Tests the sampler of ptp_engine with the vectors that also test the TypeScript code, and against simple code."""

import json
import pathlib

import numpy as np
import pytest
import torch

from ptp_engine.adjust import Adjustment, adjusted
from ptp_engine.gen import engine_pb2
from ptp_engine.ranked import walk
from ptp_engine.sampler import NEAREST, Draw, Plan
from ptp_engine.tree import pick_dense
from ptp_engine.uniforms import uniforms, uniforms_of
from ptp_train.model.coordinates import dimensions, pick
from ptp_train.model.sampling import shape

torch.set_num_threads(1)
VECTORS = pathlib.Path(__file__).parents[2] / "test" / "vectors"
CASES = {name: json.loads((VECTORS / f"{name}.json").read_text())["cases"] for name in ("sampling", "tree", "uniforms")}


def plan(rows: int, u: np.ndarray, temperature=1.0, top_k=0, top_p=1.0, min_p=0.0, **others) -> Plan:
    types = (np.float32, np.int64, np.float32, np.float32)
    columns = [
        np.broadcast_to(x, rows).astype(t) for x, t in zip((temperature, top_k, top_p, min_p), types, strict=True)
    ]
    parameters = list(zip(*(column.tolist() for column in columns), strict=True))
    return Plan(parameters, u.astype(np.float32), **others)


def test_uniforms_equal_the_shared_vectors():
    for case in CASES["uniforms"]:
        seeds, positions = np.array([int(case["seed"])], np.uint64), np.array([case["position"]])
        assert uniforms(seeds, positions, case["d"] + 1)[0, case["d"]] == np.float32(case["value"]), case


def test_positions_count_modulo_2_32():
    last = np.array([2**32 - 1, 0])
    np.testing.assert_array_equal(uniforms_of(5, -1, 2, 5), uniforms(np.full(2, 5), last, 5))


def test_uniforms_of_several_seeds():
    seeds, positions = np.array([3, 2**64 - 1, 3], np.uint64), np.array([5, 2**32 - 1, 6])
    together = uniforms(seeds, positions, 9)
    for row, (seed, position) in enumerate(zip(seeds, positions, strict=True)):
        np.testing.assert_array_equal(together[row], uniforms(np.array([seed]), np.array([position]), 9)[0])


@pytest.mark.parametrize(("position", "count"), [(0, 1), (60, 9), (63, 200), (2**32 - 3, 3)])
def test_uniforms_of_successive_positions(position, count):
    expected = uniforms(np.full(count, 2**64 - 1, np.uint64), position + np.arange(count), 5)
    np.testing.assert_array_equal(uniforms_of(2**64 - 1, position, count, 5), expected)


@pytest.mark.parametrize("case", CASES["tree"])
def test_picks_equal_the_shared_vectors(case):
    logits = torch.tensor([case["logits"]], dtype=torch.float32)
    settings = plan(1, np.array([case["u"]]), case["temperature"], case["top_k"], case["top_p"])
    assert Draw(logits, settings).result().tokens[0] == case["token"]


@pytest.mark.parametrize("case", CASES["sampling"])
def test_kept_tokens_equal_the_shared_vectors(case):
    """Draws many uniforms for one distribution: every kept token that is not rare must appear, and no other."""
    logits = torch.tensor(case["logits"], dtype=torch.float32)
    rows, depth = 400, dimensions("tree", len(logits))
    u = uniforms(np.full(rows, 1, np.uint64), np.arange(rows), depth)
    settings = plan(rows, u, case["temperature"], case["top_k"], case["top_p"])
    drawn = set(Draw(logits.expand(rows, -1), settings).result().tokens.tolist())
    p = shape(logits, *(torch.tensor(float(case[name])) for name in ("temperature", "top_k", "top_p")))
    assert {t for t in case["kept"] if p[t] > 0.05} <= drawn <= set(case["kept"])


SETTINGS = [
    {},
    {"temperature": 0.0},
    {"temperature": 0.7, "top_k": 40},
    {"top_k": NEAREST[0], "top_p": 0.9},
    {"top_k": NEAREST[1] + 1},
    {"top_k": 100, "top_p": 0.9},
    {"top_k": NEAREST[1] + 1, "top_p": 0.9},
    {"top_p": 0.5},
    {"top_p": 0.999},
    {"top_k": 10, "top_p": 0.8, "temperature": 1.5},
]


@pytest.mark.parametrize("settings", SETTINGS)
def test_picks_equal_those_of_ptp_train(settings):
    """Checks every path: greedy, no limit, and all numbers of ranked tokens."""
    torch.manual_seed(1)
    rows, vocabulary = 64, 3000
    logits = torch.randn(rows, vocabulary) * torch.linspace(0.3, 4, rows)[:, None]
    u = uniforms(np.full(rows, 9, np.uint64), np.arange(rows), dimensions("tree", vocabulary))
    found = Draw(logits, plan(rows, u, **settings)).result()
    defaults = {"temperature": 1.0, "top_k": 0, "top_p": 1.0} | settings
    p = shape(logits, *(torch.tensor(float(defaults[name])).expand(rows) for name in ("temperature", "top_k", "top_p")))
    np.testing.assert_array_equal(found.tokens, pick("tree", p, torch.from_numpy(u)).numpy())
    expected = logits.log_softmax(-1)[torch.arange(rows), torch.from_numpy(found.tokens).long()]
    np.testing.assert_allclose(found.log_probabilities, expected, atol=1e-5)


@pytest.mark.parametrize("vocabulary", [1, 2, 300, 512, 513, 5000, 2**18, 2**18 + 3])
def test_trees_of_all_depths(vocabulary):
    torch.manual_seed(3)
    rows, depth = 8, dimensions("tree", vocabulary)
    weights = (torch.randn(rows, vocabulary) * 3).exp().mul(1000).floor()
    weights[:, ::3] = 0
    weights[:, -1] += 1
    u = torch.from_numpy(uniforms(np.full(rows, 8, np.uint64), np.arange(rows), depth))
    expected = pick("tree", weights.double(), u)
    assert pick_dense(weights, u).flatten().tolist() == expected.tolist()
    for row in range(rows):
        ids = weights[row].nonzero().flatten()
        sums = weights[row, ids].long().cumsum(-1).tolist()
        chosen = walk(ids.tolist(), sums, (u[row] * 2**24).long().tolist())
        assert ids[chosen] == expected[row]


def test_a_row_does_not_depend_on_other_rows():
    torch.manual_seed(2)
    rows, vocabulary = 24, 500
    logits = torch.randn(rows, vocabulary)
    u = uniforms(np.full(rows, 9, np.uint64), np.arange(rows), 9)
    columns = [np.resize(values, rows) for values in ([0.0, 1.0, 0.5], [0, 0, 7, 100], [1.0, 0.3, 0.99], [0, 0.1])]
    together = Draw(logits, plan(rows, u, *columns, top_count=3)).result()
    for row in range(rows):
        alone = Draw(logits[row : row + 1], plan(1, u[row : row + 1], *(c[row] for c in columns), top_count=3)).result()
        assert alone.tokens[0] == together.tokens[row]
        assert alone.log_probabilities[0] == together.log_probabilities[row]


def test_ties_at_the_border_keep_the_lowest_ids():
    """bfloat16 logits often tie. Of 200 equal logits, top-k keeps the lowest ids, and a nucleus too."""
    rows, vocabulary = 400, 256
    logits = torch.zeros(rows, vocabulary)
    logits[:, :56] = -1.0
    u = uniforms(np.full(rows, 4, np.uint64), np.arange(rows), 8)
    for settings in ({"top_k": 5}, {"top_p": 4.5 / (200 + 56 * np.exp(-1))}):
        drawn = Draw(logits, plan(rows, u, **settings)).result().tokens
        assert set(drawn.tolist()) == {56, 57, 58, 59, 60}


def test_min_p_removes_improbable_tokens():
    logits = torch.tensor([[0.0, -1.0, -2.0, -3.0]]).expand(300, -1)
    u = uniforms(np.full(300, 4, np.uint64), np.arange(300), 2)
    drawn = Draw(logits, plan(300, u, min_p=np.exp(-2.5))).result().tokens
    assert set(drawn.tolist()) == {0, 1, 2}


def test_top_alternatives_are_sorted_and_not_shaped():
    logits = torch.tensor([[1.0, 3.0, 2.0, 3.0, -1.0]])
    found = Draw(logits, plan(1, np.array([[0.9, 0.9, 0.9]]), temperature=2.0, top_k=1, top_count=3)).result()
    assert found.top_ids.tolist() == [[1, 3, 2]]
    np.testing.assert_allclose(found.top_log_probabilities[0], logits.log_softmax(-1)[0, [1, 3, 2]], atol=1e-6)


def test_adjustments_follow_the_order_scale_bias_mask():
    logits = torch.tensor([[2.0, -2.0, 1.0, 0.5, 0.0, 3.0, -1.0, 4.0, 1.0], [1.0] * 9])
    change = engine_pb2.LogitAdjustment(scaled=[0, 1], scale=2, biased=[1, 2], biases=[1.5, -np.inf])
    masked = engine_pb2.LogitAdjustment(allowed=bytes([0b00100001, 1]))
    found = adjusted(logits, [Adjustment(0, change), Adjustment(1, masked)])
    assert found[0].tolist() == [1.0, -2.5, -np.inf, 0.5, 0.0, 3.0, -1.0, 4.0, 1.0]
    assert [t for t, x in enumerate(found[1].tolist()) if x == 1.0] == [0, 5, 8]
    assert logits[1].tolist() == [1.0] * 9


def test_alternatives_and_log_probabilities_ignore_adjustments():
    logits = torch.tensor([[1.0, 3.0, 2.0]])
    allow_one = engine_pb2.LogitAdjustment(allowed=bytes([0b001]))
    settings = plan(1, np.zeros((1, 2)), temperature=0.0, adjustments=[Adjustment(0, allow_one)], top_count=1)
    found = Draw(logits, settings).result()
    assert (found.tokens[0], found.top_ids[0, 0]) == (0, 1)
    np.testing.assert_allclose(found.log_probabilities[0], logits.log_softmax(-1)[0, 0], atol=1e-6)


@pytest.mark.parametrize("broken", [float("nan"), float("-inf"), float("inf")])
@pytest.mark.parametrize("settings", [{}, {"top_k": 5}, {"top_p": 0.5}, {"temperature": 0.0}])
@pytest.mark.filterwarnings("ignore:invalid value")
def test_rows_without_a_finite_largest_logit_are_invalid(broken, settings):
    logits = torch.zeros(2, 2000)
    logits[1] = broken
    found = Draw(logits, plan(2, np.full((2, 11), 0.5), **settings)).result()
    assert found.valid.tolist() == [True, False]

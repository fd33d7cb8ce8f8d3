"""Tests uniforms, shaping and Pick with the vectors that also test the TypeScript code."""

import json
import pathlib

import numpy as np
import pytest
import torch
from philox import philox, uniforms

from ptp_train.model.coordinates import between, dimensions, interval, pick
from ptp_train.model.sampling import shape

VECTORS = pathlib.Path(__file__).parents[2] / "test" / "vectors"
SAMPLING = json.loads((VECTORS / "sampling.json").read_text())
TREE = json.loads((VECTORS / "tree.json").read_text())
UNIFORMS = json.loads((VECTORS / "uniforms.json").read_text())


def cases(vectors):
    return vectors["cases"] if isinstance(vectors, dict) else vectors


@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    [
        ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            (0xA4093822, 0x299F31D0),
            (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
        ),
    ],
)
def test_philox_known_answers(counter, key, expected):
    """Checks the published vectors of Random123 for philox4x32-10."""
    assert tuple(philox(np.array(counter, np.uint64), key).tolist()) == expected


def test_uniforms_equal_the_shared_vectors():
    assert len(cases(UNIFORMS)) >= 100
    for case in cases(UNIFORMS):
        d = case["d"]
        value = uniforms(int(case["seed"]), case["position"], 1, d + 1)[0, d]
        assert float(value) == float(case["value"]), case


def tensors(case):
    settings = (torch.tensor(float(case[k])) for k in ("temperature", "top_k", "top_p"))
    return torch.tensor(case["logits"], dtype=torch.float32), *settings


@pytest.mark.parametrize(("kind", "case"), [("cdf", c) for c in cases(SAMPLING)] + [("tree", c) for c in cases(TREE)])
def test_shape_and_pick_equal_the_shared_vectors(kind, case):
    p = shape(*tensors(case))
    assert p.nonzero().flatten().tolist() == sorted(case["kept"])
    u = torch.tensor(case["u"] if kind == "tree" else [case["u"]])
    assert u.shape == (dimensions(kind, len(p)),)
    assert int(pick(kind, p, u)) == case["token"]


@pytest.mark.parametrize("kind", ["cdf", "tree"])
@pytest.mark.parametrize("case", cases(SAMPLING)[::5])
def test_interval_holds_just_the_uniforms_that_pick_the_token(kind, case):
    p = shape(*tensors(case))
    for token in p.nonzero().flatten():
        low, high = interval(kind, p, token)
        if (high - low).min() < 1e-4:
            continue
        for inside in (0.02, 0.5, 0.98):
            assert pick(kind, p, between(low, high, torch.full_like(low, inside))) == token


@pytest.mark.parametrize("kind", ["cdf", "tree"])
def test_interval_has_the_probability_of_its_token(kind):
    torch.manual_seed(0)
    p = (torch.randn(20) * 2).softmax(-1)
    low, high = interval(kind, p.expand(20, 20), torch.arange(20))
    torch.testing.assert_close((high - low).prod(-1), p, atol=1e-6, rtol=1e-5)


def test_the_tree_never_enters_an_empty_half():
    p = torch.tensor([2.0**-149, 0, 0])
    assert int(pick("tree", p, torch.full((2,), 1 - 2**-24))) == 0

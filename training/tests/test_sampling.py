"""u, shaping and Pick against the vectors that the TypeScript side is tested with too."""

import json
import pathlib

import numpy as np
import pytest
import torch

from ptp_train.sampling import interval, pick, shape
from ptp_train.uniforms import philox, uniforms

VECTORS = pathlib.Path(__file__).parents[2] / "test" / "vectors"
SAMPLING = json.loads((VECTORS / "sampling.json").read_text())
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
    """The published vectors of Random123 for philox4x32-10."""
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


@pytest.mark.parametrize("case", cases(SAMPLING))
def test_shape_and_pick_equal_the_shared_vectors(case):
    p = shape(*tensors(case))
    assert p.nonzero().flatten().tolist() == sorted(case["kept"])
    assert int(pick(p, torch.tensor(case["u"]))) == case["token"]


@pytest.mark.parametrize("case", cases(SAMPLING)[::5])
def test_interval_holds_just_the_uniforms_that_pick_the_token(case):
    p = shape(*tensors(case))
    for token in p.nonzero().flatten():
        low, high = interval(p, token)
        if high - low < 1e-4:
            continue
        for inside in (0.02, 0.5, 0.98):
            assert pick(p, low + (high - low) * inside) == token

"""Tests of embeddings of uniforms that were tried, and of a second pass."""

import pathlib

import numpy as np
import onnxruntime
import pytest
import torch

from ptp_train.export.graphs.drafter_graph import uniform_embedding
from ptp_train.export.graphs.embeddings import features as graph_features
from ptp_train.export.graphs.graph import FLOAT, Graph, WeightFile
from ptp_train.model.drafter import Drafter, DrafterConfig
from ptp_train.model.embeddings import EMBEDDINGS, features
from ptp_train.model.transformer import Config, Target
from research import graph_embeddings  # noqa: F401 - importing these adds the embeddings and their graphs
from research.two_passes import TwoPassDrafter

CONFIG = Config(vocab=96, width=64, layers=4, heads=4, kv_heads=2, head_width=16, hidden=96, context=64)
CONDITIONS = tuple(torch.tensor(x) for x in (0.7, 0.9, 50.0))
OTHERS = [kind for kind in EMBEDDINGS if kind != "fourier"]


def session(path: pathlib.Path) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(path)


@torch.no_grad()
@pytest.mark.parametrize("rank", [0, 8])
def test_a_second_pass_sees_the_tokens_of_the_first(rank):
    """In training the second pass sees answers. If the answers are the tokens that the first pass drafts, the second
    pass is the same in training and in drafting.
    """
    torch.manual_seed(4)
    target = Target(CONFIG)
    twice = TwoPassDrafter(DrafterConfig(CONFIG, source=(0, 1, 3), length=4, rank=rank), target).eval()
    for p in (*target.parameters(), *twice.parameters()):
        if p.ndim == 2:
            torch.nn.init.normal_(p, std=0.4)
    ids, starts, u = torch.randint(0, 96, (1, 24)), torch.tensor([[5, 9, 17]]), torch.rand(1, 3, 4, 7)
    asked = (target.read(ids, 4)[1], ids.gather(1, starts - 1), starts, u, CONDITIONS)
    once = Drafter(twice.config)
    once.load_state_dict(twice.state_dict(), strict=False)
    first, second = once.draft(*asked), twice.draft(*asked)
    assert not torch.equal(first, second)
    everywhere = torch.ones(1, 3, dtype=torch.bool)

    def picked(answers, second):
        return twice.choose(twice(*asked, answers, second=second), u, CONDITIONS[0])[0]

    assert torch.equal(picked(first, ~everywhere), first)
    # The first position sees no token. Until the passes differ, the head sees the same tokens in training and in
    # drafting.
    assert torch.equal(second[..., 0], first[..., 0])
    same = (first == second).cumprod(-1).bool()
    behind = torch.cat([torch.ones_like(same[..., :1]), same[..., :-1]], -1)
    assert torch.equal(picked(first, everywhere)[behind], second[behind])


@pytest.mark.parametrize("kind", OTHERS)
def test_embeddings_have_their_declared_number_of_features(kind):
    u = torch.rand(5, 3)
    assert features(kind, u, 0).shape == (5, 3 * EMBEDDINGS[kind].count(0))


def test_binary_features_are_the_bits_of_the_float():
    bits = features("binary", torch.tensor([0.75]), 0)
    assert int("".join(str(int(b)) for b in bits), 2) == 0x3F400000  # IEEE 754: 0.75 = 1.5 * 2^-1


@pytest.mark.parametrize("kind", OTHERS)
def test_embedded_uniforms(tmp_path, kind):
    """Tests features of multiples of 2^-24, including the smallest and the largest."""
    g = Graph(WeightFile(tmp_path / "unused.weights"))
    g.input("u", FLOAT, [1, "M", 3])
    name = graph_features(g, kind, "u", 3, 4)
    g.output(name, FLOAT, [1, "M", None])
    g.save(tmp_path / "embedding.onnx")
    whole = np.random.default_rng(0).integers(0, 2**24, (1, 40, 3))
    whole[0, 0] = 0, 1, 2**24 - 1
    whole[0, 1] = 2**23, 2**23 - 1, 3
    u = (whole / 2**24).astype(np.float32)
    (found,) = session(tmp_path / "embedding.onnx").run(None, {"u": u})
    expected = features(kind, torch.from_numpy(u), 4).numpy()
    assert found.shape[-1] == 3 * EMBEDDINGS[kind].count(4)
    np.testing.assert_allclose(found, expected, atol=2e-5 if kind == "cosine" else 0)


@torch.no_grad()
@pytest.mark.parametrize("kind", OTHERS)
def test_a_drafter_with_them_is_exported(tmp_path, kind):
    """Tests the embedding of u and conditions, with the hidden layer that `float` has."""
    torch.manual_seed(0)
    drafter = Drafter(DrafterConfig(CONFIG, source=(0, 1), method="o", rank=0, embedding=kind))
    g = Graph(WeightFile(tmp_path / "d.weights", storage="exact"))
    shapes = {"u": drafter.config.coordinates, "temperature": 1, "top_p": 1, "top_k": 1, "first": 1}
    for name, width in shapes.items():
        g.input(name, FLOAT, [1, "M", width])
    g.output(uniform_embedding(g, drafter), FLOAT, [1, "M", CONFIG.width])
    g.save(tmp_path / "d.onnx")
    u = torch.from_numpy(np.random.default_rng(0).integers(0, 2**24, (1, 5, shapes["u"])) / 2**24).float()
    ones = torch.ones(1, 5, 1)
    given = {"u": u, "temperature": ones * 0.7, "top_p": ones, "top_k": ones * 50, "first": ones}
    feeds = {i.name: given[i.name].numpy() for i in session(tmp_path / "d.onnx").get_inputs()}
    (found,) = session(tmp_path / "d.onnx").run(None, feeds)
    expected = drafter.uniform(u, *(given[name][..., 0] for name in ("temperature", "top_p", "top_k")))
    np.testing.assert_allclose(found, expected.numpy(), atol=1e-4)

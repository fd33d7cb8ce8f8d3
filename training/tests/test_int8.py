"""Targets exported with integer products: a token's result does not depend on its batch, and is close to the result in
float32.
"""

import json

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx_target import Reader, TargetGraph
from tiny_pair import byte_tokenizer

from ptp_train.__main__ import main
from ptp_train.export.graphs.graph import FLOAT, Graph
from ptp_train.export.graphs.int8 import ACTIVATION_LIMIT, WEIGHT_LIMIT, quantise_channels
from ptp_train.export.graphs.weight_file import WeightFile
from ptp_train.export.model_folder import Form, write_folder
from ptp_train.model.transformer import Config, Target, save
from ptp_train.train.exported import exported_target

CONFIG = Config(
    vocab=512,
    width=128,
    layers=3,
    heads=4,
    kv_heads=2,
    head_width=32,
    hidden=256,
    context=128,
    qkv_bias=True,
    qk_norm=True,
)


@pytest.fixture(scope="module")
def target():
    torch.manual_seed(0)
    target = Target(CONFIG).eval()
    with torch.no_grad():
        for name, p in target.named_parameters():
            p.normal_(std=0.3 if "embedding" in name else p.shape[1] ** -0.5) if p.ndim == 2 else p.add_(0.1)
    return target


@pytest.fixture(scope="module")
def graphs(target, tmp_path_factory):
    """Returns graphs by precision and slots, with log_probabilities [R, V] as an additional output."""
    out = {}
    for precision in ("float32", "int8"):
        folder = tmp_path_factory.mktemp(precision)
        write_folder(target, None, byte_tokenizer().to_str().encode(), folder, "test", {}, Form(precision))
        for slots in (1, 4):
            path = folder / f"target.b{slots}.onnx"
            model = onnx.load(path, load_external_data=False)
            model.graph.output.append(onnx.helper.make_tensor_value_info("log_probabilities", FLOAT, ["R", "V"]))
            onnx.save(model, path)
            out[precision, slots] = TargetGraph(path)
        out[precision] = folder
    return out


@pytest.fixture(scope="module")
def tokens():
    return np.random.default_rng(1).integers(0, CONFIG.vocab, 96).tolist()


@pytest.mark.parametrize("chunks", [[2] * 48, [3] * 32, [5] * 18 + [6], [64, 32], [2, 7, 31, 8, 48]])
def test_chunking_changes_no_bit(graphs, tokens, chunks):
    graph = graphs["int8", 1]
    u = np.random.default_rng(2).random((len(tokens), graph.uniforms), np.float32)
    whole, parts = (graph.read(tokens, c, temperature=0.8, u=u) for c in ([96], chunks))
    for a, b in zip(whole, parts, strict=True):
        assert a.tobytes() == b.tobytes()


def test_a_ragged_batch_of_four_changes_no_bit(graphs, tokens):
    alone, together = graphs["int8", 1], graphs["int8", 4]
    starts, lengths = [2, 40, 7, 21], [2, 9, 3, 16]
    u = np.random.default_rng(3).random((sum(lengths), alone.uniforms), np.float32)

    def slots():
        readers = [Reader(alone) for _ in starts]
        for reader, start in zip(readers, starts, strict=True):
            alone.run([(reader, tokens[:start])])
        return [(r, tokens[s : s + n]) for r, s, n in zip(readers, starts, lengths, strict=True)]

    batch, single = slots(), slots()
    joint = together.run(batch, temperature=0.9, u=u)
    at = 0
    for i, n in enumerate(lengths):
        [expected] = alone.run([single[i]], temperature=0.9, u=u[at : at + n])
        for a, b in zip(joint[i], expected, strict=True):
            assert a.tobytes() == b.tobytes()
        for name, rows in single[i][0].past.items():
            assert batch[i][0].past[name].tobytes() == rows.tobytes(), name
        at += n


def test_distributions_are_near_those_of_float32(graphs, tokens):
    p, q = (graphs[precision, 1].distributions(tokens) for precision in ("float32", "int8"))
    divergence = (np.exp(p) * (p - q)).sum(1)
    assert 0 < divergence.mean() < 0.02
    assert (p.argmax(1) == q.argmax(1)).mean() > 0.9


@pytest.mark.parametrize("precision", ["float32", "int8"])
def test_a_folder_is_measured_as_onnxruntime_computes_it(graphs, tokens, precision):
    with torch.no_grad():
        measured = exported_target(graphs[precision])(torch.tensor([tokens]))[0].log_softmax(-1).numpy()
    expected = graphs[precision, 1].distributions(tokens)
    divergence = (np.exp(expected) * (expected - measured)).sum(1)
    float32 = graphs["float32", 1].distributions(tokens)
    loss = (np.exp(float32) * (float32 - graphs["int8", 1].distributions(tokens))).sum(1)
    assert abs(divergence.mean()) < loss.mean() / 10  # Single activations may round differently.


def test_a_folder_with_in_place_caches_is_measured_like_the_others(graphs, target, tokens, tmp_path):
    options = {"slots": (8,), "in_place": True}
    write_folder(target, None, byte_tokenizer().to_str().encode(), tmp_path, "test", {}, Form("int8"), **options)
    with torch.no_grad():
        in_place, packed = (exported_target(f)(torch.tensor([tokens])) for f in (tmp_path, graphs["int8"]))
    assert torch.equal(in_place, packed)


def test_evaluate_compares_a_folder_with_its_checkpoint(graphs, target, tmp_path, capsys):
    rng = np.random.default_rng(4)
    for split in ("held_files", "held_packages"):
        np.save(tmp_path / f"{split}.npy", rng.integers(0, CONFIG.vocab, 300).astype(np.uint16))
    facts = {split: {"bytes": 900, "tokens": 300} for split in ("held_files", "held_packages")}
    (tmp_path / "tokens.json").write_text(json.dumps(facts))
    save(tmp_path / "target.pt", "target", target)
    words = ["--target", tmp_path / "target.pt", "--data", tmp_path, "--work", tmp_path, "--sequences", 4]
    main(["evaluate", "--folder", str(graphs["int8"]), *map(str, words)])
    found = json.loads(capsys.readouterr().out)
    assert found["precision"] == "int8"
    for split in facts:
        change = 100 * (found["folder"][split] / found["target"][split] - 1)
        assert change == pytest.approx(found["change_percent"][split], abs=0.01) and 0 < abs(change) < 5


def test_matrices_are_stored_in_a_byte_each(graphs, target):
    size = (graphs["int8"] / "target.weights").stat().st_size
    layers = sum(p.numel() for p in target.layers.parameters() if p.ndim == 2)
    embedding = target.embedding.weight.numel()
    rope = 2 * (CONFIG.context + 1) * CONFIG.head_width // 2 * 4
    padding = 4096 * 24
    assert (
        layers + 3 * embedding <= size <= layers + 3 * embedding + rope + padding
    )  # The embedding in float16, which is also the head.
    kinds = {n.op_type for n in onnx.load(graphs["int8"] / "target.b1.onnx", load_external_data=False).graph.node}
    assert "MatMulInteger" in kinds and not kinds & {"MatMul", "Gemm"}


def test_integers_stay_clear_of_16_bit_saturation():
    weight = torch.randn(64, 96, generator=torch.Generator().manual_seed(4))
    integers, scale = quantise_channels(weight)
    assert integers.abs().max() == WEIGHT_LIMIT and 2 * (2 * ACTIVATION_LIMIT + 1) * WEIGHT_LIMIT < 2**15
    torch.testing.assert_close(integers * scale[:, None], weight, atol=scale.max().item() / 2, rtol=0)


@pytest.mark.parametrize(
    ("values", "stored"),
    [([1.0, 2.5], torch.float16), ([1.0, 1e-30], torch.bfloat16), ([1.0, 1.0 + 2**-20], torch.float32)],
)
def test_exact_storage_takes_the_narrowest_type_that_holds_the_values(tmp_path, values, stored):
    value = torch.tensor([values]).to(torch.bfloat16).float() if stored == torch.bfloat16 else torch.tensor([values])
    kind = WeightFile(tmp_path / "model.weights", storage="exact").storage_type("layer0.up", value)
    assert kind == stored and torch.equal(value.to(kind).float(), value)


def test_float16_storage_rejects_values_that_are_too_large(tmp_path):
    too_large = torch.tensor([[1e6]])
    weights = WeightFile(tmp_path / "model.weights", storage="float16")
    with pytest.raises(ValueError, match="layer0.up must fit float16, got a magnitude of 1000000"):
        weights.storage_type("layer0.up", too_large)


def test_an_unknown_precision_is_rejected(tmp_path):
    with pytest.raises(ValueError, match="precision must be one of float32, int8, int8-fused, got int4"):
        WeightFile(tmp_path / "model.weights", "int4")


@pytest.mark.parametrize("precision", ["int8", "int8-fused"])
def test_products_in_integers_are_near_those_in_floats(tmp_path, precision):
    generator = torch.Generator().manual_seed(5)
    x, weight = torch.randn(6, 128, generator=generator), torch.randn(96, 128, generator=generator)
    bias = torch.randn(96, generator=generator)
    g = Graph(WeightFile(tmp_path / "w", precision))
    g.input("x", FLOAT, ["R", 128])
    g.output(g.linear("linear", "x", weight, "y", bias), FLOAT, ["R", 96])
    g.output(g.head("head", "x", weight, "z"), FLOAT, ["R", 96])
    g.save(tmp_path / "linear.onnx")
    model = onnxruntime.InferenceSession(tmp_path / "linear.onnx", providers=["CPUExecutionProvider"])
    y, z = model.run(None, {"x": x.numpy()})
    wanted = (x @ weight.T).numpy()
    for got, right in ((z, wanted), (y, wanted + bias.numpy())):
        assert np.abs(got - right).max() < 0.03 * np.abs(right).max()
    kinds = {n.op_type for n in g.nodes}
    assert ("DynamicQuantizeMatMul" in kinds) == (precision == "int8-fused") and not kinds & {"MatMul", "Gemm"}


def test_a_target_must_have_a_batch_invariant_precision():
    with pytest.raises(SystemExit):
        main(["export", "--id", "x", "--target-precision", "int8-fused"])

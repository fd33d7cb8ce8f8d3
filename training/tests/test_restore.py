"""A model folder that is turned back into checkpoints and exported again has the same weights."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny_pair import byte_tokenizer
from tokenizers import Tokenizer

from ptp_train.__main__ import main
from ptp_train.data.vocabulary_order import relabelled
from ptp_train.export import model_folder as export
from ptp_train.export.model_folder import Form
from ptp_train.export.restore import StoredTensors
from ptp_train.model.drafter import Drafter, DrafterConfig, load_drafter
from ptp_train.model.transformer import Config, Target, load_target

CONFIG = Config(vocab=257, width=64, layers=3, heads=4, kv_heads=2, head_width=16, hidden=96, context=64)
LLAMA = replace(CONFIG, tied=False, qkv_bias=True, qk_norm=True, rope_scaling=(2.0,))
OWN = replace(CONFIG, width=32, layers=2, heads=2, kv_heads=1, hidden=64)
SHAPES = {
    "feature": (CONFIG, DrafterConfig(CONFIG, (0, 2), kind="feature", rank=32)),
    "reader of a relative of Llama": (LLAMA, DrafterConfig(LLAMA, (0, 1), kind="reader", rank=0, method="o")),
    "reader with a shortlist": (CONFIG, DrafterConfig(CONFIG, (0, 1), rank=16, shortlist=100)),
    "separate": (CONFIG, DrafterConfig(CONFIG, (0, 1), kind="separate", rank=16, own=OWN)),
}


@torch.no_grad()
def written(tmp_path, shape: str, form: Form, drafter_form: Form):
    """Returns a target and a drafter with random weights, and the folder to which they were exported."""
    torch.manual_seed(0)
    config, drafting = SHAPES[shape]
    target = Target(config).eval()
    listed = torch.randperm(config.vocab)[: drafting.shortlist].sort().values if drafting.shortlist else None
    drafter = Drafter(drafting, target, listed).eval()
    for p in (*target.parameters(), *drafter.parameters()):
        p.add_(torch.randn_like(p) * 0.1)
    folder = tmp_path / "folder"
    write(target, drafter, folder, form, drafter_form)
    return target, drafter, folder


def write(target, drafter, folder, form, drafter_form) -> None:
    curve = [1.0] * (drafter.config.length + 1)
    facts = {"drafter": {"yield_curve": curve, "accuracy_by_position": curve[1:]}}
    tokenizer = byte_tokenizer().to_str().encode()
    export.write_folder(target, drafter, tokenizer, folder, "test", facts, form, drafter_form, slots=(1,))


def restored(folder, out, *words):
    main(["restore", "--from", str(folder), "--work", str(out), *words])
    return load_target(out / "target.pt"), load_drafter(out / "drafter.pt")


@pytest.mark.parametrize("shape", SHAPES)
def test_exact_weights_come_back_exactly(tmp_path, shape):
    exact = Form("float32", "exact")
    *modules, folder = written(tmp_path, shape, exact, exact)
    for module, back in zip(modules, restored(folder, tmp_path / "work"), strict=True):
        assert back.config == module.config
        for name, value in module.state_dict().items():
            torch.testing.assert_close(back.state_dict()[name], value, rtol=0, atol=0, msg=name)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("forms", [("float32", "float32"), ("int8", "int8-fused")])
def test_a_second_export_stores_the_same(tmp_path, shape, forms):
    forms = [Form(precision) for precision in forms]
    _, _, folder = written(tmp_path, shape, *forms)
    write(*restored(folder, tmp_path / "work"), tmp_path / "again", *forms)
    for name in ("target.b1.onnx", "drafter.b1.onnx"):
        first, second = (StoredTensors(f / name).arrays for f in (folder, tmp_path / "again"))
        assert first.keys() == second.keys()
        for key, value in first.items():
            if value.dtype == np.float32:
                np.testing.assert_allclose(
                    second[key], value, rtol=1e-3 if key.endswith("embedding.head.scale") else 1e-6, err_msg=key
                )
            elif key.endswith(
                "embedding.head.i8"
            ):  # Quantised from float32 the first time, then from the embedding's float16.
                np.testing.assert_allclose(second[key], value, atol=1)
            else:
                np.testing.assert_array_equal(second[key], value, err_msg=key)


@pytest.mark.parametrize("shape", ["feature", "reader with a shortlist"])
def test_the_vocabulary_takes_the_ids_of_an_existing_tokenizer(tmp_path, shape):
    exact = Form("float32", "exact")
    target, drafter, folder = written(tmp_path, shape, exact, exact)
    order = np.concatenate([[0], np.random.default_rng(0).permutation(np.arange(1, 257))])
    tokens = tmp_path / "work" / "tokens"
    tokens.mkdir(parents=True)
    relabelled(byte_tokenizer(), order).save(str(tokens / "tokenizer.json"))
    new_target, new_drafter = restored(folder, tmp_path / "work")
    text = "interface A { b: string }"
    old, new = (
        torch.tensor(t.encode(text).ids)
        for t in (byte_tokenizer(), Tokenizer.from_file(str(tokens / "tokenizer.json")))
    )
    torch.testing.assert_close(new_target(new[None]), target(old[None])[..., order], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(new_drafter.embedding.weight, drafter.embedding.weight[order], rtol=0, atol=0)
    if drafter.shortlist is not None:
        listed = torch.from_numpy(order)[new_drafter.shortlist]
        assert drafter.lists(listed).all() and new_drafter.shortlist.diff().min() > 0
        assert torch.equal(new_drafter.output.weight, drafter.output.weight[drafter.places(listed)])


def test_a_folder_without_graphs_names_them(tmp_path):
    _, _, folder = written(tmp_path, "feature", Form(), Form())
    (folder / "target.b1.onnx").unlink()
    with pytest.raises(SystemExit, match=r"folder must contain target\.b\*\.onnx"):
        restored(folder, tmp_path / "work")


def test_other_tokens_are_rejected(tmp_path):
    _, _, folder = written(tmp_path, "feature", Form(), Form())
    tokens = tmp_path / "work" / "tokens"
    tokens.mkdir(parents=True)
    content = json.loads(byte_tokenizer().to_str())
    content["model"]["vocab"] = {k if k != "a" else "aa": v for k, v in content["model"]["vocab"].items()}
    (tokens / "tokenizer.json").write_text(json.dumps(content))
    with pytest.raises(SystemExit, match="--tokens must have the same tokens as --from"):
        restored(folder, tmp_path / "work")

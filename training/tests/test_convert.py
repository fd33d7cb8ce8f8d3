"""Targets exported to transformers, llama.cpp's GGUF and transformers.js have the same logits, tensors and tokens."""

import json

import gguf
import numpy as np
import onnxruntime
import pytest
import torch
import transformers
from tiny_pair import byte_tokenizer
from tokenizers import Tokenizer

from ptp_train.__main__ import main
from ptp_train.export.model_folder import Form, write_folder
from ptp_train.export.to_gguf import LLAMA3_WORDS, pre_tokenizer, tensors
from ptp_train.model.transformer import Config, Target, load_target, save

SIZES = dict(vocab=288, width=64, layers=3, heads=4, kv_heads=2, head_width=16, hidden=96, context=64)
TARGETS = {
    "ours": Config(**SIZES),
    "llama3": Config(**SIZES, tied=False, rope_theta=500000.0, rope_scaling=(8.0, 1.0, 4.0, 32.0)),
    "linear": Config(**SIZES, rope_scaling=(4.0,), epsilon=1e-6),
    "qwen2": Config(**SIZES, qkv_bias=True),
    "qwen3": Config(**SIZES, tied=False, qk_norm=True),
}
TEXT = "interface A<T> {\n  b: string | undefined\n}"
TEMPLATE = "{% for message in messages %}{{ message.content }}{% endfor %}"


@pytest.fixture(scope="module", params=TARGETS)
def target(request, tmp_path_factory):
    """Returns a random target, and the model folder to which it was written."""
    torch.manual_seed(0)
    target = Target(TARGETS[request.param]).eval()
    with torch.no_grad():
        for p in target.parameters():
            if p.ndim == 1:
                p.add_(torch.randn_like(p) * 0.1)
            else:
                p.normal_(std=0.4 if p.shape[0] == SIZES["vocab"] else p.shape[1] ** -0.5)
    folder = tmp_path_factory.mktemp(request.param)
    tokenizer = byte_tokenizer().to_str().encode()
    write_folder(target, None, tokenizer, folder, "random", {}, Form(storage="exact"), None, TEMPLATE.encode(), (1,))
    return target, folder


def export(folder, kind, out, *words):
    main(["export", "--to", kind, "--from", str(folder), "--out", str(out), *words])
    return out


@pytest.fixture(scope="module")
def ids():
    return torch.randint(0, SIZES["vocab"], (2, 60), generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def test_transformers_gives_the_same_logits(target, ids, tmp_path):
    folder = export(target[1], "hf", tmp_path / "hf")
    model = transformers.AutoModelForCausalLM.from_pretrained(folder).eval()
    torch.testing.assert_close(model(ids).logits, target[0](ids), atol=1e-4, rtol=1e-4)
    assert model.generation_config.eos_token_id == 0
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    assert tokenizer(TEXT).input_ids == byte_tokenizer().encode(TEXT).ids
    assert tokenizer.decode(tokenizer(TEXT).input_ids) == TEXT
    assert tokenizer.apply_chat_template([{"content": "a"}, {"content": "b"}], tokenize=False) == "ab"
    assert tokenizer.eos_token_id == 0


def test_an_exported_folder_can_be_imported_again(target, ids, tmp_path):
    folder = export(target[1], "hf", tmp_path / "hf")
    main(["import-hf", "--from", str(folder), "--work", str(tmp_path)])
    again = load_target(tmp_path / "target.pt")
    assert again.config == target[0].config
    for name, value in target[0].state_dict().items():
        assert torch.equal(again.state_dict()[name], value), name


def test_gguf_holds_the_same_tensors(target, tmp_path):
    reader = gguf.GGUFReader(export(target[1], "gguf", tmp_path / "model.gguf"))
    architecture = reader.fields["general.architecture"].contents()
    expected = tensors(target[0], architecture)
    assert {t.name for t in reader.tensors} == set(expected)
    for t in reader.tensors:
        np.testing.assert_array_equal(t.data.reshape(t.shape[::-1]), expected[t.name].numpy())
    c = target[0].config
    for name, value in {
        "context_length": c.context,
        "block_count": c.layers,
        "attention.head_count_kv": c.kv_heads,
        "rope.freq_base": c.rope_theta,
        "attention.layer_norm_rms_epsilon": c.epsilon,
    }.items():
        assert reader.fields[f"{architecture}.{name}"].contents() == pytest.approx(value)


def test_gguf_holds_the_tokenizer(target, tmp_path):
    fields = gguf.GGUFReader(export(target[1], "gguf", tmp_path / "model.gguf")).fields
    got = {name.removeprefix("tokenizer."): field.contents() for name, field in fields.items() if "tokenizer." in name}
    vocabulary = byte_tokenizer().get_vocab()
    assert got["ggml.model"] == "gpt2" and got["ggml.pre"] == "gpt-2"
    assert [got["ggml.tokens"][i] for i in vocabulary.values()] == list(vocabulary)
    assert got["ggml.token_type"] == [3] + [1] * 256 + [5] * 31
    assert (got["ggml.eos_token_id"], got["ggml.bos_token_id"], got["ggml.add_bos_token"]) == (0, 0, False)
    assert got["chat_template"] == TEMPLATE


@pytest.mark.parametrize(("kind", "error"), [("f16", 1e-3), ("q8_0", 1 / 100), ("q4_0", 1 / 7)])
def test_gguf_in_fewer_bits(target, kind, error, tmp_path):
    reader = gguf.GGUFReader(export(target[1], "gguf", tmp_path / "model.gguf", "--type", kind))
    expected = tensors(target[0], reader.fields["general.architecture"].contents())
    for t in reader.tensors:
        value = expected[t.name].numpy()
        assert t.tensor_type.name == ("F32" if value.ndim == 1 else kind.upper())
        near = error * max(1, abs(value).max())
        found = gguf.quants.dequantize(t.data, t.tensor_type).reshape(value.shape)
        np.testing.assert_allclose(found, value, atol=near)


def test_queries_and_keys_are_reordered_for_the_rotation_of_llama():
    """llama.cpp rotates neighbouring pairs. With reordered rows, the scores are the same."""
    target = Target(TARGETS["ours"])
    q = tensors(target, "llama")["blk.0.attn_q.weight"]
    original = target.layers[0].q.weight
    for head in (0, 3):
        for i in (0, 1, 7):
            assert torch.equal(q[16 * head + 2 * i], original[16 * head + i])
            assert torch.equal(q[16 * head + 2 * i + 1], original[16 * head + 8 + i])
    assert torch.equal(tensors(target, "qwen2")["blk.0.attn_q.weight"], original)


@torch.no_grad()
def test_transformers_js_graph_gives_the_same_logits(target, ids, tmp_path):
    """Compares whole sequences, and chunks after a cache with the logits of only the last token."""
    module, folder = target
    out = export(folder, "transformers-js", tmp_path / "js")
    session = onnxruntime.InferenceSession(out / "onnx" / "model.onnx")
    c = module.config
    names = [f"past_key_values.{n}.{part}" for n in range(c.layers) for part in ("key", "value")]

    def empty(batch):
        return dict.fromkeys(names, np.zeros((batch, c.kv_heads, 0, c.head_width), np.float32))

    def run(new, seen, past, keep):
        mask = np.ones((len(new), seen + new.shape[1]), np.int64)
        feeds = {"input_ids": new.numpy(), "attention_mask": mask, "num_logits_to_keep": np.array(keep)}
        values = session.run(None, feeds | past)
        found = dict(zip([o.name for o in session.get_outputs()], values, strict=True))
        return found.pop("logits"), {k.replace("present", "past_key_values"): v for k, v in found.items()}

    expected = module(ids).numpy()
    whole, _ = run(ids, 0, empty(2), 0)
    np.testing.assert_allclose(whole, expected, atol=1e-4, rtol=1e-4)
    # onnxruntime's GroupQueryAttention takes several tokens after a cache only if there is one sequence.
    for batch, ends in ((2, (10, 11, 12)), (1, (10, 11, 60))):
        past, seen = empty(batch), 0
        for end in ends:
            last, past = run(ids[:batch, seen:end], seen, past, 1)
            seen = end
            np.testing.assert_allclose(last, expected[:batch, end - 1 : end], atol=1e-4, rtol=1e-4)
    config = json.loads((out / "config.json").read_text())
    assert config["num_key_value_heads"] == 2 and config["transformers.js_config"]["use_external_data_format"]
    assert Tokenizer.from_file(str(out / "tokenizer.json")).encode(TEXT).ids == byte_tokenizer().encode(TEXT).ids


def test_a_checkpoint_is_exported_with_its_special_tokens_and_first_layers(tmp_path):
    target = Target(Config(**SIZES))
    save(
        tmp_path / "target.pt",
        "target",
        target,
        special_tokens={"end_of_text": 3, "stop_tokens": [5], "begin_of_text": 4},
    )
    (tmp_path / "tokens").mkdir()
    (tmp_path / "tokens" / "tokenizer.json").write_text(byte_tokenizer().to_str())
    out = tmp_path / "model.gguf"
    main(["export", "--to", "gguf", "--work", str(tmp_path), "--out", str(out), "--layers", "2"])
    fields = gguf.GGUFReader(out).fields
    tokens = [fields[f"tokenizer.ggml.{name}_token_id"].contents() for name in ("eos", "bos", "eot")]
    assert tokens == [3, 4, 5] and fields["tokenizer.ggml.add_bos_token"].contents()
    assert fields["llama.block_count"].contents() == 2


def test_unsupported_exports_are_rejected(target, tmp_path):
    with pytest.raises(SystemExit, match="--out must be given with --to hf"):
        main(["export", "--to", "hf", "--from", str(target[1])])
    with pytest.raises(
        SystemExit, match="--from can only be used with --to hf, gguf or transformers-js, got --to server"
    ):
        main(["export", "--id", "x", "--from", str(target[1])])
    with pytest.raises(SystemExit, match="--type must be one of f32, f16 with --to hf, got q8_0"):
        export(target[1], "hf", tmp_path, "--type", "q8_0")
    with pytest.raises(SystemExit, match="--layers must be at most 3, got 4"):
        export(target[1], "gguf", tmp_path / "x.gguf", "--layers", "4")
    split = {"type": "Split", "pattern": {"Regex": LLAMA3_WORDS}}
    by_bytes = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": False}
    raw = {"pre_tokenizer": {"type": "Sequence", "pretokenizers": [split, by_bytes]}}
    assert pre_tokenizer(raw) == "llama-bpe"
    split["pattern"] = {"Regex": "a"}
    with pytest.raises(SystemExit, match="--to gguf requires a byte-level BPE"):
        pre_tokenizer(raw)

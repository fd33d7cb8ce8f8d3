"""Tests that the engine refuses models that it cannot serve, and that the errors name the reason."""

import argparse
import json
import shutil

import pytest
import torch
from huggingface_hub.utils import filter_repo_objects
from tiny_hf import config_of, run, save_tiny, slot, tiny_target

from ptp_engine import load as loading
from ptp_engine.load import Options, check_config, check_memory, load, weight_bytes
from ptp_train.model.hugging_face import weight_files

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_tiny("llama", tmp_path_factory.mktemp("llama"))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"layer_types": ["linear_attention", "full_attention", "full_attention"]}, "layer_types.*linear_attention"),
        ({"is_encoder_decoder": True}, "is_encoder_decoder"),
        ({"attention_chunk_size": 64}, "attention_chunk_size.*64"),
        ({"rope_parameters": {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4}}, "rope_type"),
    ],
)
def test_models_with_other_layers_are_refused(change, reason):
    config = config_of("llama")
    for name, value in change.items():
        setattr(config, name, value)
    with pytest.raises(SystemExit, match=reason):
        check_config(config, 600)


def test_recurrent_models_are_refused(tmp_path):
    import transformers

    config = transformers.MambaConfig(vocab_size=50, hidden_size=16, num_hidden_layers=1, max_position_embeddings=64)
    transformers.MambaForCausalLM(config).save_pretrained(tmp_path)
    with pytest.raises(SystemExit, match="recurrent|layer_types|attention"):
        tiny_target(tmp_path, context_length=None)


def test_a_model_that_does_not_fit_is_refused_before_it_is_loaded(folder, monkeypatch):
    needed = weight_bytes(weight_files(folder), torch.float32)
    monkeypatch.setattr(loading, "memory_of", lambda device: (needed - 1, 10 * needed))
    monkeypatch.setattr(loading.AutoModelForCausalLM, "from_pretrained", None)
    with pytest.raises(SystemExit, match=r"needs 0\.0 GB .* 0\.0 GB are available"):
        load(Options(model=folder, device="cpu", memory_fraction=1.0))


def test_the_memory_fraction_is_a_share_of_the_total_memory(monkeypatch):
    cpu = torch.device("cpu")
    monkeypatch.setattr(loading, "memory_of", lambda device: (6 * 10**9, 10**10))
    check_memory(5 * 10**9, cpu, 0.5)
    with pytest.raises(SystemExit, match=r"needs 5\.1 GB .* 5\.0 GB are available"):
        check_memory(51 * 10**8, cpu, 0.5)
    with pytest.raises(SystemExit, match=r"needs 6\.1 GB .* 6\.0 GB are available"):
        check_memory(61 * 10**8, cpu, 0.9)


def test_weight_bytes_is_the_size_of_the_parameters(folder):
    model = load(Options(model=folder, device="cpu"))
    size = sum(p.numel() for p in model.parameters())
    assert weight_bytes(weight_files(folder), torch.float32) == 4 * size
    assert weight_bytes(weight_files(folder), torch.bfloat16) == 2 * size


def test_duplicates_of_the_weights_need_no_memory(folder, tmp_path, monkeypatch):
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    shutil.copy(tmp_path / "model.safetensors", tmp_path / "consolidated.safetensors")
    sizes = []
    monkeypatch.setattr(loading, "check_memory", lambda needed, *_: sizes.append(needed))
    load(Options(model=folder, device="cpu"))
    load(Options(model=tmp_path, device="cpu"))
    assert sizes[0] == sizes[1]


def test_duplicates_of_the_weights_are_not_downloaded(monkeypatch):
    files = ["config.json", "model-1-of-2.safetensors", "consolidated.safetensors", "original/a.safetensors", "a.bin"]
    downloads = []

    def snapshot_download(name, **patterns):
        downloads.extend(filter_repo_objects(files, **patterns))
        return "folder"

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    loading.folder_of("org/model")
    assert downloads == files[:2]


def test_a_folder_without_weights_is_refused(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(config_of("llama").to_dict()))
    with pytest.raises(SystemExit, match="safetensors"):
        load(Options(model=tmp_path, device="cpu"))


def test_the_context_is_limited_by_the_model_and_the_memory(folder):
    with pytest.raises(SystemExit, match=r"--context-length must be in \[2, 512\].*got 513"):
        tiny_target(folder, context_length=513)
    wide = save_tiny("llama", folder / "wide", head_dim=512, num_key_value_heads=4)
    with pytest.raises(SystemExit, match="--context-length must be at most .*got 384"):
        tiny_target(wide, kv_megabytes=8)
    assert tiny_target(wide, kv_megabytes=8, context_length=None).info().context_length < 384


def test_bfloat16(folder):
    target = tiny_target(folder, dtype="bfloat16")
    target.open(1)
    assert len(run(target, slot(1, 0, [1, 2, 3], {"temperature": 1.0}))[0].picks) == 3
    assert target.info().precision == "bfloat16"


def test_options_come_from_a_namespace():
    given = argparse.Namespace(model="m", dtype="float16", listen="x:1")
    assert Options.of(given) == Options(model="m", dtype="float16")


def test_a_model_that_cannot_be_downloaded(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(SystemExit, match="MODEL must be a folder, or a name that the hub has, got no/such-model: "):
        loading.folder_of("no/such-model")


def test_key_value_heads_must_be_shared_evenly():
    config = config_of("llama", num_key_value_heads=2)
    assert loading.sharded(config, 2)["distributed_config"].tp_size == 2
    with pytest.raises(SystemExit, match="must divide the number of key/value heads of MODEL, 2, got 3"):
        loading.sharded(config, 3)

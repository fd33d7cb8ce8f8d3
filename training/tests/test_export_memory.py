"""Tests that large models are imported and exported part by part."""

import json
import os
import pathlib
import re

import pytest
import torch
from safetensors.torch import save_file

from ptp_train.__main__ import main
from ptp_train.export.portable import PortableTarget, hf_config
from ptp_train.export.to_hf import hf_state
from ptp_train.model.transformer import Config, Target, load_target

TINY = pathlib.Path(__file__).parents[2] / "test" / "models" / "tiny"
CONFIG = Config(vocab=2048, width=256, layers=24, hidden=1024, context=128)
CLEAR_REFS = pathlib.Path("/proc/self/clear_refs")
"""Linux resets the peak memory of the process when 5 is written to this file."""


def growth(*words) -> int:
    """Returns the maximum number of bytes by which the memory of the process grows during a command of ptp-train."""
    CLEAR_REFS.write_text("5")
    before = peak()
    main([str(word) for word in words])
    return peak() - before


def peak() -> int:
    return int(re.search(r"VmHWM:\s+(\d+)", pathlib.Path("/proc/self/status").read_text())[1]) * 1024


@pytest.mark.skipif(
    not os.access(CLEAR_REFS, os.W_OK), reason="only Linux reports the peak memory of a part of a process"
)
def test_memory_does_not_grow_with_the_number_of_layers(tmp_path):
    with torch.device("meta"):
        target = Target(CONFIG).bfloat16()
    target.to_empty(device="cpu")
    for parameter in target.parameters():
        parameter.data.uniform_(-0.1, 0.1)
    model = PortableTarget("large", target, "", None, 0)
    save_file(hf_state(model), tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({"architectures": ["LlamaForCausalLM"], **hf_config(model)}))
    (tmp_path / "tokenizer.json").write_bytes((TINY / "tokenizer.json").read_bytes())
    size = (tmp_path / "model.safetensors").stat().st_size
    checkpoint, tokens = tmp_path / "target.pt", tmp_path / "tokens"

    assert growth("import-hf", "--from", tmp_path, "--out", checkpoint, "--tokens", tokens) < 1.2 * size
    assert checkpoint.stat().st_size < 1.1 * size
    assert {p.dtype for p in load_target(checkpoint).parameters()} == {torch.float32}
    form = ("--target-precision", "int8", "--target-only", "--id", "large", "--slots", "1")
    exported = growth("export", "--target", checkpoint, "--tokens", tokens, "--out", tmp_path / "folder", *form)
    assert exported < 0.5 * size
    manifest = json.loads((tmp_path / "folder" / "manifest.json").read_text())
    assert manifest["target"]["parameters"] > 20_000_000

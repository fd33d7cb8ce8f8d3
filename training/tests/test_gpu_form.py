"""Tests targets for GPUs. engine/test/gpu-form.test.ts compares their results with those of targets for CPUs."""

import argparse
import json

import onnx
import pytest
from tiny_in_place import TINY, write

from ptp_train.export import command

CPU_ONLY = {"Attention", "FusedMatMul", "If", "LogSoftmax", "Loop", "Or"}
"""Operations for which onnxruntime's WebGPU provider has no kernel."""


def test_targets_for_gpus_use_operations_of_webgpu(tmp_path):
    write(tmp_path, device="gpu")
    graph = onnx.load(tmp_path / "target.b4.onnx", load_external_data=False).graph
    operations = [node.op_type for node in graph.node]
    assert operations.count("GroupQueryAttention") == 3 * 4 and not CPU_ONLY.intersection(operations)
    assert [output.name for output in graph.output if not output.name.startswith(("nk", "nv"))] == ["picked"]
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert manifest["target"]["device"] == "gpu" and "caches" not in manifest["target"]
    # The tests of the engine use the committed files.
    for name in ("target.b4.onnx", "target.weights"):
        assert (tmp_path / name).read_bytes() == (TINY.parent / "tiny-gpu" / name).read_bytes()


def test_targets_for_gpus_compute_in_floats():
    options = {"to": "server", "id": "x", "device": "gpu", "target_precision": "int8", "slots": None, "from": None}
    with pytest.raises(SystemExit, match="--target-precision must be float32 with --device gpu, got int8"):
        command.check(argparse.Namespace(**options))
    options |= {"to": "hf", "out": "out", "type": "f32", "target_precision": "float32"}
    with pytest.raises(SystemExit, match="--device gpu can only be used with --to server, got --to hf"):
        command.check(argparse.Namespace(**options))

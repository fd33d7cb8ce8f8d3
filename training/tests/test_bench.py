"""Tests that the measurements for GPUs run, on a CPU."""

import json
import pathlib
import subprocess
import sys

SCRIPT = pathlib.Path(__file__).parents[2] / "bench" / "gpu" / "run.py"


def test_the_script_measures_tiny_models(tmp_path):
    subprocess.run([sys.executable, SCRIPT, "--tiny", "--out", tmp_path], check=True, capture_output=True)
    report = json.loads((tmp_path / "gpu.json").read_text())
    assert [model["model"] for model in report["models"]] == ["tiny", "tiny-2"]
    for model in report["models"]:
        assert model["self_check"]["rows"] == 288
        assert model["host_ms"] > 0
        assert set(model["verify_eager"]) == {"1", "9", "64"}
    assert report["at_once"]["both_ms"] > 0

"""Tests that the measurements in Python run, with tiny models on a CPU."""

import json
import os
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).parents[2]


def test_a_draft_is_measured_against_a_verify(tmp_path):
    words = [ROOT / "bench" / "draft_cost.py", "--small", "--runs", "1", "--out", tmp_path]
    env = os.environ | {"PYTHONPATH": str(ROOT / "training" / "src")}
    output = subprocess.run([sys.executable, *words], check=True, capture_output=True, text=True, env=env).stdout
    reports = [json.loads(line) for line in output.splitlines()]
    assert [report["call"] for report in reports] == [
        "verify",
        "draft, head at each position",
        "draft, head once",
        "draft, head once, shortlist",
    ]
    for report in reports:
        assert report["least"] > 0 and report["nodes"]


def test_the_calls_of_a_gpu_are_measured(tmp_path):
    script = ROOT / "bench" / "gpu" / "run.py"
    subprocess.run([sys.executable, script, "--tiny", "--out", tmp_path], check=True, capture_output=True)
    report = json.loads((tmp_path / "gpu.json").read_text())
    assert [model["model"] for model in report["models"]] == ["tiny", "tiny-2"]
    for model in report["models"]:
        assert model["self_check"]["rows"] == 288
        assert model["host_ms"] > 0
        assert set(model["verify_eager"]) == {"1", "9", "64"}
    assert report["at_once"]["both_ms"] > 0

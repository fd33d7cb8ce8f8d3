"""Tests of the command line: help, errors, recipes, progress, and a target that is trained, interrupted and resumed."""

import argparse
import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from ptp_train.__main__ import main
from ptp_train.cli import commands, recipes, settings
from ptp_train.cli.progress import Progress, flat, span
from ptp_train.train import device

PIPELINE = ("corpus", "tokenizer", "target", "teacher-samples", "distill", "evaluate", "export")
RECIPES = sorted(recipes.FOLDERS[0].glob("*.yaml"))
SIZES = (
    "--layers",
    "2",
    "--width",
    "64",
    "--hidden",
    "32",
    "--context",
    "64",
    "--batch-tokens",
    "64",
    "--threads",
    "1",
)


def error_of(*words):
    with pytest.raises(SystemExit) as raised:
        main([str(w) for w in words])
    return str(raised.value)


def test_help_lists_the_commands_in_order_without_loading_pytorch():
    code = "import sys; from ptp_train.__main__ import main; main(['--help']); assert 'torch' not in sys.modules"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    order = [
        shown.index(f"\n  {c} ")
        for c in ("corpus", "tokenizer", "target", "teacher-samples", "distill", "evaluate", "export")
    ]
    assert order == sorted(order)
    assert "ptp-train run tiny" in shown


@pytest.mark.parametrize(
    "command", ["corpus", "tokenizer", "target", "teacher-samples", "distill", "evaluate", "export", "run"]
)
def test_every_command_explains_itself(command, capsys):
    with pytest.raises(SystemExit) as end:
        main([command, "--help"])
    assert end.value.code == 0
    assert "--work" in capsys.readouterr().out


def test_errors_name_option_limit_and_value():
    assert (
        error_of("tokenizer", "--vocab-size", 100)
        == "ptp-train tokenizer: --vocab-size must be in [257, 32768], got 100"
    )
    assert error_of("target", "--width", "100").endswith("--width must be a multiple of 64 in [64, 8192], got 100")
    assert error_of("target", "--rate", "nan").endswith("--rate must be in (0, 1], got nan")
    assert error_of("target", "--layerz=3").endswith("--layerz=3 is unknown: did you mean --layers?")
    assert error_of("targets") == "ptp-train: command targets is unknown: did you mean target?"
    assert "--split must be one of" in error_of("teacher-samples", "--split", "test")
    assert error_of("target", "--take", "0,96").endswith("--take must be comma-separated integers in [0, 95], got 0,96")


def test_errors_for_missing_inputs_name_the_command_that_makes_them(tmp_path):
    message = error_of("tokenizer", "--work", tmp_path)
    assert message.endswith(f"--corpus must exist, {tmp_path}/corpus is missing: `ptp-train corpus` makes it")


def test_a_target_alone_is_exported_without_anything_about_a_drafter(tmp_path):
    for name in ("target.pt", "tokens"):
        (tmp_path / name).touch()
    words = ["--work", str(tmp_path), "--id", "x"]
    with pytest.raises(SystemExit, match="--drafter must exist"):
        commands.check(commands.parse("export", words))
    commands.check(commands.parse("export", [*words, "--target-only"]))


def test_work_moves_defaults_and_leaves_given_paths(tmp_path):
    args = commands.parse("target", ["--work", str(tmp_path), "--out", "work/own.pt"])
    assert args.data == tmp_path / "tokens" and str(args.out) == "work/own.pt"
    assert args.logs == tmp_path / "logs" / "target"


def test_limits_of_every_kind():
    kinds = {
        settings.integer(1, 5): (["1", "5"], ["0", "6", "1.5", "x"]),
        settings.integer(0): (["1_000"], ["-1"]),
        settings.number(0, 1): (["0", "0.5"], ["1.1", "nan"]),
        settings.number(0, above=True): (["1e-9"], ["0", "inf"]),
        settings.integers(0, 3): (["0,3"], ["0,4", ""]),
        settings.numbers("a", "b"): (["1,2"], ["1", "1,x"]),
        settings.matching("[a-z]+", "small letters"): (["abc"], ["A"]),
    }
    for kind, (good, bad) in kinds.items():
        for text in good:
            kind(text)
        for text in bad:
            with pytest.raises(argparse.ArgumentTypeError, match=f"got {text}$"):
                kind(text)


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    """Returns three folders of short source files."""
    root = tmp_path_factory.mktemp("text")
    rng = np.random.default_rng(0)
    for folder in ("a", "b", "c"):
        for n in range(40):
            path = root / folder / f"{n}.txt"
            path.parent.mkdir(exist_ok=True)
            path.write_text("".join(f"value_{rng.integers(1000)} = {rng.integers(10**9)} + {n}\n" for _ in range(40)))
    return root


def write_recipe(path, steps):
    path.write_text(json.dumps({"name": "test", "description": "for this test", "steps": steps}))
    return path


def start_of_recipe(text, tmp_path, **target):
    sizes = {"layers": 2, "width": 64, "hidden": 32, "context": 64, "batch-tokens": 64, "threads": 1}
    steps = [
        {"corpus": {"text": str(text), "files": "*.txt"}},
        {"tokenizer": {"vocab-size": 512}},
        {"target": {"tokens": 256} | sizes | target},
    ]
    return write_recipe(tmp_path / "recipe.yaml", steps)


def test_recipe_runs_steps_once_and_reruns_changed_ones(text, tmp_path, capsys):
    recipe, work = start_of_recipe(text, tmp_path), tmp_path / "work"
    main(["run", str(recipe), "--work", str(work)])
    first = capsys.readouterr().out
    assert "== 3/3 target\n" in first and (work / "target.pt").exists()
    assert json.loads((work / "corpus" / "sources.json").read_text())["files"]["held_packages"] == 40
    main(["run", str(recipe), "--work", str(work)])
    assert capsys.readouterr().out.count("already done") == 3
    main(["run", str(recipe), "--work", str(work), "--set", "target.tokens=512"])
    again = capsys.readouterr().out
    assert again.count("already done") == 2 and "resumed at 256 tokens" in again
    (work / "tokens" / "held_files.npy").unlink()
    main(["run", str(recipe), "--work", str(work), "--set", "*.tokens=512"])
    # The tokenizer makes the same tokens again, so later steps are skipped.
    assert capsys.readouterr().out.count("already done") == 2
    assert (work / "tokens" / "held_files.npy").exists()


def test_recipe_is_checked_as_a_whole_before_its_first_step(text, tmp_path):
    work = tmp_path / "work"
    for change, message in {
        "target.batch-tokens=100": "step target: --batch-tokens must be a multiple of --context 64, got 100",
        "target.layers=0": "step target: ptp-train target: --layers must be in [1, 96], got 0",
        "target.layer=2": "step target: --layer is unknown: did you mean --layers?",
        "tokeniser.vocab-size=512": "step tokeniser is unknown: did you mean tokenizer?",
        "corpus.text=nowhere": "step corpus: --text must be a folder, got nowhere",
        "tokenizer.corpus=nowhere": "--corpus must exist, nowhere is missing",
        "tokens": "--set must be STEP.OPTION=VALUE, got tokens",
    }.items():
        assert message in error_of("run", start_of_recipe(text, tmp_path), "--work", work, "--set", change)
    assert not work.exists()


def test_invalid_recipes_are_rejected(tmp_path, monkeypatch):
    # Drop the folder that other tests add.
    monkeypatch.setattr(recipes, "FOLDERS", recipes.FOLDERS[:1])
    assert "two steps are named corpus" in error_of("run", write_recipe(tmp_path / "r", ["corpus", "corpus"]))
    assert "did you mean distill?" in error_of("run", write_recipe(tmp_path / "r", ["distil"]))
    assert "steps must be a list" in error_of("run", write_recipe(tmp_path / "r", {}))
    assert "RECIPE must be a file or one of continue, cpu-default, gpu-default, hugging-face, tiny" in error_of(
        "run", "nothing"
    )


@pytest.mark.parametrize("path", RECIPES, ids=lambda p: p.stem)
def test_recipes_that_come_with_the_package_are_valid(path, text, tmp_path):
    changes = ["*.precision=bfloat16", f"corpus.text={text}", "corpus.files=*.txt"]
    if path.stem == "hugging-face":
        changes.append(f"import-hf.from={tmp_path}")
    args = argparse.Namespace(recipe=str(path), set=changes, work=tmp_path / "work")
    steps = recipes.plan(args)
    assert [s.precision for s in steps if s.command == "distill"]
    assert steps[0].command in ("corpus", "import-hf")
    assert all(s.precision == "bfloat16" for s in steps if hasattr(s, "precision"))
    assert steps[-1].command == "export"


@pytest.fixture(scope="module")
def tokens(text, tmp_path_factory):
    work = tmp_path_factory.mktemp("work")
    main(["corpus", "--work", str(work), "--text", str(text), "--files", "*.txt"])
    main(["tokenizer", "--work", str(work), "--vocab-size", "512"])
    return work / "tokens"


def train(tokens, out, *more):
    main(["target", "--work", str(out.parent), "--data", str(tokens), "--out", str(out), *SIZES, *more])
    return torch.load(out)


def test_an_interrupted_run_gives_the_same_target_as_an_uninterrupted_one(tokens, tmp_path, monkeypatch):
    whole = train(tokens, tmp_path / "whole.pt", "--tokens", "640")
    broken = tmp_path / "broken.pt"
    update, calls = Progress.update, []

    def interrupt(self, *words, **scalars):
        calls.append(1)
        if len(calls) == 5:
            raise KeyboardInterrupt
        update(self, *words, **scalars)

    monkeypatch.setattr(Progress, "update", interrupt)
    with pytest.raises(SystemExit, match="run the command again to resume from the last checkpoint"):
        train(tokens, broken, "--tokens", "640", "--checkpoint-seconds", "0")
    monkeypatch.setattr(Progress, "update", update)
    assert train(tokens, broken, "--tokens", "640")["identity"] == whole["identity"]


def test_init_continues_from_a_target_with_lower_rates(tokens, tmp_path):
    first = train(tokens, tmp_path / "first.pt", "--tokens", "128")
    main(
        [
            "target",
            "--data",
            str(tokens),
            "--out",
            str(tmp_path / "next.pt"),
            "--work",
            str(tmp_path),
            "--tokens",
            "64",
            "--init",
            str(tmp_path / "first.pt"),
            "--batch-tokens",
            "64",
            "--threads",
            "1",
        ]
    )
    second = torch.load(tmp_path / "next.pt")
    assert second["config"] == first["config"] and second["init"] == first["identity"] != second["identity"]
    assert float(second["settings"]["rate"]) == pytest.approx(3e-4)
    with pytest.raises(SystemExit, match="was started with {'init': .*}, not with {}"):
        train(tokens, tmp_path / "next.pt", "--tokens", "128")


def test_progress_writes_lines_and_events_and_continues_after_resuming(tmp_path, capsys):
    logs = tmp_path / "distill"
    with Progress(logs, 10, "steps", seconds=0, settings={"seed": 1}) as progress:
        for step in range(1, 7):
            progress.update(step, loss=torch.tensor(1.0 / step))
        progress.record(4, held={"accuracy": [0.5, 0.25]})
    with Progress(logs, 10, "steps", done=4, seconds=0) as progress:
        for step in range(5, 11):
            progress.update(step, loss=2.0)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("distill: 1/10 steps (10%), loss 1, ") and lines[0].endswith("left")
    events = EventAccumulator(str(logs)).Reload()
    assert [(e.step, e.value) for e in events.Scalars("loss")] == [
        *((s, pytest.approx(1 / s)) for s in range(1, 5)),
        *((s, 2.0) for s in range(5, 11)),
    ]
    assert events.Scalars("held/accuracy/1")[0].value == 0.25
    records = [json.loads(line) for line in (logs / "progress.jsonl").read_text().splitlines()]
    assert [r["event"] for r in records if "event" in r] == ["start", "end", "resume", "end"]
    assert records[0]["settings"] == {"seed": "1"}


def test_progress_averages_between_two_lines(capsys):
    progress = Progress(None, 100, "steps", seconds=1e9)
    for step in range(1, 101):
        progress.update(step, loss=float(step))
    assert progress.mean("loss") == progress.latest["loss"] == 50.5
    assert len(capsys.readouterr().out.splitlines()) == 1


def test_small_helpers():
    assert flat({"a": {"b": [1, 2]}, "c": "text", "d": True}) == [("a/b/0", 1.0), ("a/b/1", 2.0)]
    assert [span(s) for s in (5, 600, 7200)] == ["5 s", "10 min", "2.0 h"]
    assert (
        device.step_generator(1, 2).random()
        == device.step_generator(1, 2).random()
        != device.step_generator(2, 1).random()
    )
    device.seed_everything(1, 2)
    one = torch.rand(3)
    device.seed_everything(1, 2)
    assert torch.equal(one, torch.rand(3))

"""Tests of training on little text, and with vocabularies that have more rows than tokens."""

import argparse
import json

import numpy as np
import pytest
from documented_workspace import text_files

from ptp_train.__main__ import main
from ptp_train.cli import commands
from ptp_train.data import corpus
from ptp_train.model.transformer import Config, Target, save
from ptp_train.train import estimate, memory, samples
from ptp_train.train.distill import batch_sizes
from ptp_train.train.target import check_vocabulary, training_tokens


def test_a_folder_without_sub_folders_is_a_corpus(tmp_path):
    text = tmp_path / "text"
    text_files(text, "txt")
    main(["corpus", "--text", str(text), "--files", "*.txt", "--out", str(tmp_path)])
    report = json.loads((tmp_path / "sources.json").read_text())
    assert report["files"]["held_packages"] == 2 and sum(report["files"].values()) == 30
    assert report["bytes"]["held_files"] >= corpus.HELD_FILES_BYTES
    with pytest.raises(SystemExit, match=r"--text must have at least 2 sub-folders or files that match \*\.md, got 0"):
        main(["corpus", "--text", str(text), "--files", "*.md", "--out", str(tmp_path)])


def test_filling_held_files_leaves_enough_to_train_on(tmp_path):
    for name in ("a", "b"):
        lines = (f"{name} has line {i} of value {i * i}\n" for i in range(600))
        (tmp_path / f"{name}.txt").write_text("".join(lines))
    main(["corpus", "--text", str(tmp_path), "--files", "*.txt", "--out", str(tmp_path / "out")])
    report = json.loads((tmp_path / "out" / "sources.json").read_text())
    assert report["files"] == {"train": 1, "held_files": 0, "held_packages": 1}
    assert report["bytes"]["train"] > 2 * corpus.HELD_FILES_BYTES


def test_held_files_are_filled_without_documents_that_are_most_of_the_text():
    sizes = [2500, 2500, 12000, 2500]  # The large document comes first in the order of `share_of`.
    train = [{"package": "a", "path": str(n), "text": "x" * size} for n, size in enumerate(sizes)]
    documents = {"train": train, "held_files": []}
    corpus.fill_held_files(documents)
    assert [entry["path"] for entry in documents["held_files"]] == ["3", "1"]
    assert [entry["path"] for entry in documents["train"]] == ["0", "2"]


def test_prompts_need_more_text_than_the_shortest():
    with pytest.raises(SystemExit, match="--data must have more than 256 tokens of held_files, got 256: add text"):
        samples.prompt_lengths(4096, "held_files", 256)
    assert samples.prompt_lengths(4096, "held_files", 600)[0] == (64, 256)


def test_only_an_imported_target_may_have_more_rows_than_tokens():
    check_vocabulary(320, 259, imported=True)
    check_vocabulary(259, 259, imported=False)
    with pytest.raises(SystemExit, match=r"--init must have the same vocabulary size as --data \(259\), got 320"):
        check_vocabulary(320, 259, imported=False)
    with pytest.raises(
        SystemExit, match=r"--init must have a vocabulary of at least the size of --data \(259\), got 258"
    ):
        check_vocabulary(258, 259, imported=True)


def test_a_corpus_that_is_not_encoded_names_the_command_that_encodes_it(tmp_path):
    with pytest.raises(SystemExit, match="train.npy is missing: `ptp-train tokenizer` makes it"):
        training_tokens(tmp_path)


def test_batches_fit_the_memory(monkeypatch, capsys):
    target = Target(Config(vocab=1000, width=64, layers=2, heads=2, kv_heads=1, hidden=32, context=512))
    args = argparse.Namespace(batch=64, context_tokens=2048, completions=256, length=8, shortlist=0)
    assert samples.batch_of(args, target, "cpu") == 64 and batch_sizes(args, target, "cpu") == (2048, 256)
    assert capsys.readouterr().out == ""
    monkeypatch.setattr(memory, "memory_of", lambda place: 60_000_000)
    tokens, completions = batch_sizes(args, target, "cpu")
    assert tokens * memory.distribution_bytes(1000) <= 0.3 * 60_000_000
    assert completions * 8 * memory.distribution_bytes(1000) <= 0.3 * 60_000_000
    args.shortlist = 500
    assert 2 * completions <= batch_sizes(args, target, "cpu")[1] <= 2 * completions + 1
    args.shortlist = 0
    assert 1 < samples.batch_of(args, target, "cpu") < 64
    assert (
        f"--completions is {completions} instead of 256, so that a batch fits into the memory of this machine"
        in capsys.readouterr().out
    )


def test_the_log_records_the_batch_that_fits_the_memory(tmp_path, monkeypatch, capsys):
    target = Target(Config(vocab=300, width=64, layers=1, heads=1, kv_heads=1, hidden=32, context=256))
    save(tmp_path / "target.pt", "target", target)
    np.save(tmp_path / "train.npy", np.arange(400, dtype=np.uint16) % 300)
    monkeypatch.setattr(memory, "memory_of", lambda place: 10_000_000)
    words = ["--target", tmp_path / "target.pt", "--data", tmp_path, "--out", tmp_path / "samples", "--work", tmp_path]
    main(["teacher-samples", *map(str, words), "--sequences=2", "--batch=64", "--threads=1"])
    fits = int(capsys.readouterr().out.split("--batch is ")[1].split()[0])
    start = json.loads((tmp_path / "logs/teacher-samples/progress.jsonl").read_text().split("\n")[0])
    assert fits < 64 and start["settings"]["batch"] == str(fits)


def test_durations_are_measured_before_long_steps(tmp_path, monkeypatch):
    target = Target(Config(vocab=300, width=64, layers=4, heads=2, kv_heads=1, hidden=32, context=512))
    path = tmp_path / "target.pt"
    save(path, "target", target)
    words = [f"--target={path}", "--threads=1"]
    steps = [
        commands.parse("teacher-samples", [*words, "--sequences=1000000", "--batch=4"]),
        commands.parse("distill", [*words, "--steps=1000000", "--completions=8", "--context-tokens=512"]),
        commands.parse("distill", [*words, "--minutes=60"], "distill/long"),
        commands.parse("distill", [*words, "--steps=1"], "distill/short"),
    ]
    lines = list(estimate.long_steps(steps))
    assert [line.split(" will take about ")[0] for line in lines] == ["teacher-samples", "distill", "distill/long"]
    assert lines[-1] == "distill/long will take about 60 min on this cpu"

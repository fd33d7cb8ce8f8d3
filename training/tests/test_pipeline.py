"""Runs the commands in order on a corpus of a few files. Each command reads the outputs of earlier commands."""

import json
import pathlib

import numpy as np
import pytest
import torch

from ptp_train.__main__ import main
from ptp_train.data import corpus
from ptp_train.model.drafter import load_drafter
from ptp_train.model.transformer import load_target
from ptp_train.train import samples
from ptp_train.train.walks import continuation


def ptp_train(command, *arguments):
    main([command, *map(str, arguments)])


def write_package(root, name, licence, files):
    folder = root / "node_modules" / name
    folder.mkdir(parents=True)
    (folder / "package.json").write_text(json.dumps({"name": name, "version": "1.0.0", "license": licence}))
    for file, text in files.items():
        (folder / file).write_text(text)


def declaration(k):
    lines = [f"    field{k}_{i}: string | number_{(k * i) % 7}; // {k}" for i in range(40)]
    return f"export interface Thing{k} {{\n" + "\n".join(lines) + "\n}\n"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("pipeline")
    names = {"a": "MIT", "b": "Apache-2.0", "closed": "SEE LICENSE", **dict.fromkeys(corpus.HELD_PACKAGES, "MIT")}
    for n, (name, licence) in enumerate(names.items()):
        write_package(root, name, licence, {f"f{i}.d.ts": declaration(n * 100 + i) for i in range(60)})
    (root / "package.json").write_text(json.dumps({"dependencies": dict.fromkeys(names, "1.0.0")}))
    write_package(root, "copy", "MIT", {"f0.d.ts": declaration(0)})
    return root


def test_corpus_drops_copies_and_closed_packages(folder):
    manifest = json.loads((folder / "package.json").read_text())
    manifest["dependencies"]["copy"] = "1.0.0"
    (folder / "package.json").write_text(json.dumps(manifest))
    ptp_train("corpus", "--corpus", folder, "--out", folder / "corpus")
    report = json.loads((folder / "corpus" / "sources.json").read_text())
    assert set(report["packages"]) == {"a", "b", *corpus.HELD_PACKAGES}
    assert report["files"]["held_packages"] == 60 * len(corpus.HELD_PACKAGES)
    assert report["files"]["train"] + report["files"]["held_files"] == 120


def check_shortlist(folder):
    """Checks a drafter that was trained on the most frequent tokens of its samples."""
    drafter, target = load_drafter(folder / "listed.pt"), load_target(folder / "target.pt")
    counts = sum(np.bincount(np.load(f)["tokens"].ravel(), minlength=512) for f in (folder / "samples").glob("train-*"))
    listed = drafter.shortlist.numpy()
    assert len(listed) == 100 and counts[listed].min() >= np.delete(counts, listed).max()
    assert torch.equal(drafter.embedding.weight, target.embedding.weight)
    assert not torch.equal(drafter.output.weight, target.embedding.weight[drafter.shortlist])


def test_from_tokenizer_to_figures(folder, capsys, monkeypatch):
    monkeypatch.setattr(samples, "PROMPTS", ((64, 1.0),))
    w = folder
    ptp_train("tokenizer", "--corpus", w / "corpus", "--out", w / "tokens", "--vocab-size", 512)
    # The held-out split of 60 tiny files is too small to draw prompts from, and any text will do here.
    np.save(w / "tokens" / "held_files.npy", np.load(w / "tokens" / "held_packages.npy"))
    facts = json.loads((w / "tokens" / "tokens.json").read_text())
    (w / "tokens" / "tokens.json").write_text(json.dumps({**facts, "held_files": facts["held_packages"]}))
    small = ("--layers", 4, "--width", 64, "--hidden", 96, "--context", 512, "--threads", 1)
    common = ("--data", w / "tokens", "--out", w / "target.pt", "--batch-tokens", 512, *small)
    ptp_train("target", *common, "--tokens", 1024, "--checkpoint-seconds", 0)
    ptp_train("target", *common, "--tokens", 2048)
    assert "resumed at 1,024 tokens" in capsys.readouterr().out
    for split in ("train", "held_files", "held_packages"):
        sample = ("--target", w / "target.pt", "--data", w / "tokens", "--out", w / "samples", "--split", split)
        ptp_train("teacher-samples", *sample, "--sequences", 8, "--batch", 8, "--threads", 1)
    pair = ("--target", w / "target.pt", "--samples", w / "samples", "--threads", 1)
    ptp_train("distill", *pair, "--out", w / "drafter.pt", "--steps", 4, "--completions", 16, "--length", 4)
    with pytest.raises(SystemExit, match="is a checkpoint of a different model"):
        ptp_train("distill", *pair, "--out", w / "drafter.pt", "--source", "0,1,2", "--length", 4)
    with pytest.raises(SystemExit, match="must be ce with --method o"):
        ptp_train("distill", *pair, "--out", w / "o.pt", "--method", "o", "--loss", "kl")
    (w / "other").mkdir()
    for f in (w / "samples").glob("*.npz"):
        np.savez(w / "other" / f.name, **{**np.load(f), "target": np.array("0" * 12)})
    with pytest.raises(SystemExit, match="got sequences of 000000000000"):
        ptp_train("distill", *pair[:2], "--samples", w / "other", "--out", w / "x.pt", "--steps", 1)
    small = ("--steps", 2, "--completions", 16)
    ptp_train("distill", *pair, "--out", w / "one.pt", *small, "--length", 1, "--rank", 0)
    ptp_train("distill", *pair, "--out", w / "blind.pt", *small, "--length", 4, "--method", "independent")
    ptp_train("distill", *pair, "--out", w / "listed.pt", *small, "--length", 4, "--shortlist", 100, "--loss", "ce")
    check_shortlist(w)
    compared = ("--autoregressive", w / "one.pt", "--independent", w / "blind.pt")
    out = ("--data", w / "tokens", "--out", w / "evaluation.json", "--sequences", 2)
    ptp_train("evaluate", *pair, "--drafter", w / "drafter.pt", *compared, *out)
    (figures,) = json.loads(capsys.readouterr().out.splitlines()[-1])["settings"]
    other = ("--data", pathlib.Path(__file__).parents[2] / "models" / "default")
    with pytest.raises(SystemExit, match=r"--data must have a tokenizer of at most \d+ tokens, the target's, got 2048"):
        ptp_train("evaluate", *pair, "--drafter", w / "drafter.pt", *other)
    for split in ("held_files", "held_packages"):
        assert set(figures[split]) == {
            *("drafter", "independent", "prompt_lookup", "autoregressive", "speculative_sampling")
        }
        curves = [measured["yield_curve"] for measured in figures[split].values()]
        for curve in (*curves, figures[split]["drafter"]["yield_curve_after_miss"]):
            assert len(curve) == 5 and curve[0] == 0 and all(b >= a for a, b in zip(curve, curve[1:], strict=False))
        for measured in figures[split].values():
            assert 1 <= measured["tokens_per_call"] <= 5
            assert sum(part["sequences"] for part in measured["by_category"].values()) == 2


def test_a_reader_continues_as_a_feature_drafter(folder, capsys):
    w = folder
    pair = ("--target", w / "target.pt", "--samples", w / "samples", "--threads", 1)
    shape = ("--kind", "feature", "--length", 4, "--completions", 16)
    ptp_train("distill", *pair, *shape, "--init", w / "drafter.pt", "--out", w / "feature.pt", "--steps", 3, "--keep")
    out = ("--out", w / "feature.json", "--sequences", 2)
    shares = []
    for precision in ("float32", "int8"):
        ptp_train("evaluate", *pair, "--drafter", w / "feature.pt", *out, "--context-precision", precision)
        (figures,) = json.loads(capsys.readouterr().out.splitlines()[-1])["settings"]
        shares.append(figures["held_files"]["drafter"]["accuracy"])
    assert shares[0][0] == 1  # The target's own token.
    assert 0.5 < shares[1][0] <= 1
    assert len(shares[0]) == 4
    with pytest.raises(SystemExit, match="--length must be at least 2 with --kind feature, got 1: "):
        ptp_train("distill", *pair, "--kind", "feature", "--length", 1, "--out", w / "x.pt")
    where = ("--target", w / "target.pt", "--data", w / "tokens", "--out", w / "nothing")
    with pytest.raises(SystemExit, match="must not have kind feature, got .*feature.pt: this kind cannot draft"):
        ptp_train("teacher-samples", *where, "--writer", "student", "--drafter", w / "feature.pt")


def test_sequences_by_three_writers(folder):
    w = folder
    where = ("--target", w / "target.pt", "--data", w / "tokens", "--sequences", 4, "--batch", 4, "--threads", 1)
    ptp_train("teacher-samples", *where, "--writer", "data", "--out", w / "by-data")
    corpus_text = np.load(w / "tokens" / "train.npy").tobytes()
    (data,) = (w / "by-data").glob("*.npz")
    for row in np.load(data)["tokens"]:
        assert row.astype(np.load(w / "tokens" / "train.npy").dtype).tobytes() in corpus_text

    ptp_train(
        "teacher-samples", *where, "--writer", "student", "--drafter", w / "drafter.pt", "--out", w / "by-student"
    )
    (student,) = (w / "by-student").glob("*.npz")
    arrays = np.load(student)
    target, drafter = load_target(w / "target.pt"), load_drafter(w / "drafter.pt")
    ids = torch.from_numpy(arrays["tokens"].astype(np.int64))
    prompt, length = ids.shape[1] - samples.GENERATED, drafter.config.length
    temperature, top_k, top_p = (torch.from_numpy(x)[:, None, None] for x in arrays["settings"].T)
    generator = torch.Generator().manual_seed(0)
    for start in range(prompt, prompt + 3 * length, length):  # Each draft continues everything before it.
        u = torch.rand(4, 1, length, drafter.config.coordinates, generator=generator)
        with torch.no_grad():
            cache = target.read(ids[:, :start], 4)[1]
        starts = torch.full((4, 1), start)
        drafted = drafter.draft(cache, ids[:, start - 1 : start], starts, u, (temperature, top_p, top_k))
        assert drafted[:, 0].equal(ids[:, start : start + length])

    with pytest.raises(SystemExit, match="--drafter must be given if, and only if, --writer is student, got None"):
        ptp_train("teacher-samples", *where, "--writer", "student", "--out", w / "nothing")


def test_a_separate_drafter_can_start_from_the_target(folder):
    w = folder
    pair = ("--target", w / "target.pt", "--samples", w / "samples", "--threads", 1, "--steps", 1, "--completions", 8)
    tiny = ("--length", 2, "--rate", 1e-12, "--matrix-rate", 1e-12, "--out", w / "copy.pt")
    ptp_train("distill", *pair, *tiny, "--kind", "separate", "--from-target", "--source", "1,3")
    target, drafter = load_target(w / "target.pt"), load_drafter(w / "copy.pt")
    assert drafter.config.source == (0, 1) and drafter.config.own.width == target.config.width
    for mine, source in zip(drafter.layers, (1, 3), strict=True):
        torch.testing.assert_close(mine.gate.weight, target.layers[source].gate.weight)
    torch.testing.assert_close(drafter.embedding.weight, target.embedding.weight)
    with pytest.raises(SystemExit, match="--from-target can only be used with --kind separate, got --kind"):
        ptp_train("distill", *pair, *tiny, "--from-target")


def test_prompt_lookup_proposes_the_continuation_of_the_longest_match():
    text = np.array([1, 2, 3, 4, 9, 2, 3, 5, 6, 1, 2, 3])
    assert continuation(text, 3, 4).tolist() == [4, 9, 2, 3]
    assert continuation(text, 2, 2).tolist() == [5, 6]
    assert continuation(np.array([1, 2]), 3, 4).tolist() == []


def test_bad_settings_are_rejected_before_any_work(folder):
    with pytest.raises(SystemExit, match="multiple of --context 1024, got 1000"):
        ptp_train("target", "--data", folder, "--out", folder / "x.pt", "--batch-tokens", 1000)
    with pytest.raises(SystemExit, match="must be in"):
        ptp_train("tokenizer", "--vocab-size", 100)

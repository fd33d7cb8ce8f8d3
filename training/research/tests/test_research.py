"""Tests of training without a teacher, and of ablations."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny_pair import byte_tokenizer

from ptp_train.data.tokenizer import SPLITS
from ptp_train.model.drafter import Drafter, DrafterConfig
from ptp_train.model.transformer import Config
from ptp_train.train import samples
from research import bounds, inverse
from research.__main__ import main

CONFIG = Config(vocab=96, width=64, layers=4, heads=4, kv_heads=2, head_width=16, hidden=96, context=64)


def ptp_train(command, *arguments):
    main([command, *map(str, arguments)])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Returns tokens of a short text, a target trained on it, its sequences, and a drafter."""
    root = tmp_path_factory.mktemp("research")
    (root / "tokens").mkdir()
    tokenizer = byte_tokenizer()
    text = "".join(f"    field{k}: string | number_{k * k % 7}; // {k}\n" for k in range(400))
    ids = np.array(tokenizer.encode(text).ids, np.uint16)
    for split in SPLITS:
        np.save(root / "tokens" / f"{split}.npy", ids)
    tokenizer.save(str(root / "tokens" / "tokenizer.json"))
    size = {"bytes": len(ids), "tokens": len(ids), "documents": 1}
    (root / "tokens" / "tokens.json").write_text(json.dumps(dict.fromkeys(SPLITS, size)))
    small = ("--layers", 4, "--width", 64, "--hidden", 96, "--context", 512, "--threads", 1, "--batch-tokens", 512)
    ptp_train("target", "--data", root / "tokens", "--out", root / "target.pt", *small, "--tokens", 4096)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(samples, "PROMPTS", ((64, 1.0),))
        for split, conditions in (("train", ()), ("held_files", ("--conditions", "0.7,50,0.9"))):
            made = (
                "--target",
                root / "target.pt",
                "--data",
                root / "tokens",
                "--out",
                root / "samples",
                "--split",
                split,
            )
            ptp_train("teacher-samples", *made, *conditions, "--sequences", 8, "--batch", 8, "--threads", 1)
    pair = ("--target", root / "target.pt", "--samples", root / "samples", "--threads", 1)
    ptp_train("distill", *pair, "--out", root / "drafter.pt", "--steps", 1, "--completions", 16, "--length", 4)
    return root


@pytest.fixture(autouse=True)
def little_held_out_text(monkeypatch):
    monkeypatch.setattr(inverse, "HELD_TOKENS", 2048)


def test_ablations_run_each_row_once_and_write_the_table(folder, capsys):
    w = folder
    rows = {
        "base": {"length": 4, "rank": 8, "completions": 16},
        "rows": [{"name": "with", "group": "head"}, {"name": "without", "group": "head", "settings": {"rank": 0}}],
    }
    (w / "rows.yaml").write_text(json.dumps(rows))
    paths = (
        "--rows",
        w / "rows.yaml",
        "--target",
        w / "target.pt",
        "--samples",
        w / "samples",
        "--held",
        w / "samples",
    )
    call = ("ablate", *paths, "--out", w / "ablations", "--minutes", 0.005, "--sequences", 2)
    ptp_train(*call)
    assert capsys.readouterr().out.count("== ") == 2
    ptp_train(*call)
    assert "== " not in capsys.readouterr().out
    lines = (w / "ablations" / "table.md").read_text().splitlines()
    assert len(lines) == 4 and lines[2].startswith("| head | with |") and lines[3].startswith("| head | without |")
    with pytest.raises(SystemExit, match="--only must name rows of .* nothing"):
        ptp_train(*call, "--only", "nothing")


def test_inverse_training_reports_perplexity(folder, capsys):
    small = ("--width", 64, "--source", "0,1", "--context", 64, "--windows", 2, "--completions", 8, "--steps", 2)
    ptp_train("inverse", "--data", folder / "tokens", "--out", folder / "no/such/inverse.pt", *small, "--threads", 1)
    (folder / "no/such/inverse.pt").rename(folder / "inverse.pt")
    assert '"perplexity"' in capsys.readouterr().out
    # If it starts from the target, the first position predicts the same as the target, because it sees no uniform.
    still = ("--init", folder / "target.pt", "--rate", 1e-9, "--matrix-rate", 1e-9)
    ptp_train("inverse", "--data", folder / "tokens", "--out", folder / "init.pt", *small[2:], *still, "--threads", 1)
    random, started = (torch.load(folder / f"{name}.pt")["log"][-1]["by_position"][0] for name in ("inverse", "init"))
    assert started < 0.8 * random
    with pytest.raises(SystemExit, match="--method must be c or independent"):
        ptp_train("inverse", "--data", folder / "tokens", "--method", "o", "--out", folder / "x.pt")


def test_inverse_training_continues_from_plain_training(folder):
    """The first position still predicts what it learned in plain training, with any method."""
    common = (
        "inverse",
        "--data",
        folder / "tokens",
        "--context",
        64,
        "--windows",
        2,
        "--completions",
        8,
        "--threads",
        1,
    )
    plain, still = folder / "plain.pt", ("--steps", 1, "--rate", 1e-9, "--matrix-rate", 1e-9)
    ptp_train(*common, "--out", plain, "--length", 1, "--rank", 0, "--width", 64, "--source", "0,1", "--steps", 8)
    ptp_train(
        *common, "--out", folder / "same.pt", "--init", plain, "--source", "0,1", "--rank", 0, "--length", 1, *still
    )
    expected = torch.load(folder / "same.pt")["log"][-1]["perplexity"]
    for i, more in enumerate([("--rank", 0), ("--rank", 8), ("--method", "independent")]):
        out = folder / f"on{i}.pt"
        ptp_train(*common, "--out", out, "--init", plain, "--source", "0,1", "--length", 2, *more, *still)
        first, second = torch.load(out)["log"][-1]["by_position"]
        assert first == pytest.approx(expected, rel=0.02)  # The perplexity of half of the text.
        assert math.isfinite(second)
    message = "--init must be a target or a drafter trained by `inverse`; this drafter was trained with --kind reader"
    with pytest.raises(SystemExit, match=message):
        ptp_train(*common, "--out", folder / "x.pt", "--init", folder / "drafter.pt", "--source", "0,1")
    with pytest.raises(SystemExit, match="--pick must be tree, as in --init, got cdf"):
        ptp_train(*common, "--out", folder / "x.pt", "--init", plain, "--source", "0,1", "--pick", "cdf")


def test_inverse_training_finds_the_uniforms_of_its_text():
    """Under the uniforms found for a text, the drafter produces this text."""
    torch.manual_seed(2)
    config = DrafterConfig(
        CONFIG,
        source=(0, 1),
        length=4,
        kind="separate",
        own=replace(CONFIG, width=32, layers=2, heads=2, kv_heads=1, hidden=64),
        rank=8,
    )
    drafter = Drafter(config)
    for p in drafter.parameters():
        if p.ndim == 2:
            torch.nn.init.normal_(p, std=0.1)
    ids, starts = torch.randint(0, 96, (1, 24)), torch.tensor([[5, 9, 17]])
    answers = ids[:, (starts[..., None] + torch.arange(4))[0]]
    last, conditions = ids.gather(1, starts - 1), inverse.unrestricted(ids)
    with torch.no_grad():
        cache = drafter.read(ids)
        u = inverse.inverted(drafter, cache, last, starts, answers, conditions)
        assert torch.equal(drafter.draft(cache, last, starts, u, conditions), answers)


def test_bounds_order_the_couplings_of_a_drafter(folder):
    w = folder
    words = ("--target", w / "target.pt", "--drafter", w / "drafter.pt", "--samples", w / "samples")
    ptp_train("bounds", *words, "--sequences", 1, "--out", w / "bounds.json")
    report = json.loads((w / "bounds.json").read_text())
    first = report["positions"][0]
    assert report["sequences"] == 1 and first["reached"] == 1
    assert (first["one_ceiling"], first["one_drafter"]) == (first["ceiling"], first["drafter"])
    assert all(0 < row["gumbel"] <= row["ceiling"] + 1e-6 for row in report["positions"] if row["reached"] > 0)


def test_gumbel_coupling_of_two_tokens_reaches_the_ceiling():
    p, q = torch.tensor([[0.3, 0.7], [1.0, 0.0], [0.2, 0.8]]), torch.tensor([[0.6, 0.4], [0.0, 1.0], [0.2, 0.8]])
    torch.testing.assert_close(bounds.gumbel(p, q), torch.tensor([0.7, 0.0, 1.0]))
    torch.testing.assert_close(bounds.ceiling(p, q), torch.tensor([0.7, 0.0, 1.0]))


def test_curves_draw_the_logs_of_a_pair(folder, capsys):
    pytest.importorskip("matplotlib")
    w = folder
    ptp_train("curves", "--target", w / "target.pt", "--drafter", w / "drafter.pt", "--out", w / "curves.svg")
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["drafter_points"] == 1
    drawn = (w / "curves.svg").read_text()
    assert drawn.startswith("<?xml") and "held-out packages" in drawn
    silent = {k: v for k, v in torch.load(w / "target.pt").items() if k != "log"}
    torch.save(silent, w / "silent.pt")
    ptp_train("curves", "--target", w / "silent.pt", "--drafter", w / "drafter.pt", "--out", w / "one.svg")
    assert "held-out packages" not in (w / "one.svg").read_text()
    with pytest.raises(SystemExit, match="--out must end in .svg or .png, got .*curves.gif"):
        ptp_train("curves", "--target", w / "target.pt", "--drafter", w / "drafter.pt", "--out", w / "curves.gif")

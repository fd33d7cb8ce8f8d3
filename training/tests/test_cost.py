"""Tests the cost model, and the shapes that `distill --shape auto` chooses by it."""

import argparse
from dataclasses import replace

import pytest
import torch

from ptp_train.cli import commands
from ptp_train.model import cost
from ptp_train.model.drafter_config import DrafterConfig
from ptp_train.model.transformer import Config, Target, parameters_of, save
from ptp_train.train import distill, estimate

QWEN = Config(151_936, 1024, 28, 16, 8, head_width=128, hidden=3072, qk_norm=True)
LLAMA = Config(128_256, 2048, 16, 32, 8, head_width=64, hidden=8192)
QWEN_8B = Config(151_936, 4096, 36, 32, 8, head_width=128, hidden=12_288, tied=False, qk_norm=True)
TINY = Config(1024, 128, 4, 2, 1, head_width=64, hidden=352)


def test_a_verify_call_reads_every_matrix_of_the_target_once():
    with torch.device("meta"):
        target = Target(TINY)
    vectors = sum(p.numel() for p in target.parameters() if p.ndim == 1)
    assert cost.verify_cost(TINY).read == parameters_of(target) - vectors


def test_a_head_of_low_rank_and_a_shortlist_reduce_what_a_draft_reads():
    whole = DrafterConfig(QWEN, rank=640)
    once = replace(whole, rank=128)
    listed = replace(once, shortlist=32_768)
    reads = [cost.draft_cost(d).read for d in (whole, once, listed)]
    head = QWEN.vocab * QWEN.width
    assert not whole.factored and once.factored
    assert reads[0] > 8 * head and head < reads[1] < 3 * head and reads[2] < 1.3 * head
    assert cost.draft_cost(replace(listed, kind="feature")).read > cost.verify_cost(QWEN).read


@pytest.mark.parametrize(("target", "shortlist"), [(QWEN, 32_768), (LLAMA, 32_768), (QWEN_8B, 0)])
def test_drafts_for_large_targets_take_a_third_of_a_verify(target, shortlist):
    found = cost.chosen(DrafterConfig(target))
    assert (found.kind, found.shortlist, found.factored) == ("reader", shortlist, True)
    assert cost.draft_cost(found).ms <= cost.verify_cost(target).ms / 3
    assert cost.gain(found) > 2
    candidates = cost.sources(target)
    deeper = [replace(found, source=source) for source in candidates[: candidates.index(found.source)]]
    assert deeper
    for drafter in deeper:
        assert cost.draft_cost(drafter).ms > cost.verify_cost(target).ms / 3


def settings(*words: str) -> argparse.Namespace:
    return commands.parse("distill", ["--steps", "10", *words])


def automatic(*words: str) -> argparse.Namespace:
    return settings("--shape", "auto", *words)


def test_distill_takes_the_chosen_shape():
    given = automatic()
    config = distill.drafter_config(distill.shaped(given, QWEN), QWEN)
    assert config == replace(cost.chosen(DrafterConfig(QWEN)), length=config.length)
    assert given.source is None  # The settings of a recipe's step stay as they are.


def test_distill_prints_the_costs_of_the_chosen_shape_once(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(cost, "LEAST_GAIN", 0)
    save(tmp_path / "target.pt", "target", Target(TINY))
    args = automatic("--minutes", "5", "--target", str(tmp_path / "target.pt"), "--samples", str(tmp_path))
    assert estimate.distillation_seconds(args, Target(TINY), "cpu") == 300
    with pytest.raises(SystemExit, match="has no samples"):
        distill.run(args)
    assert capsys.readouterr().out.count("a draft of 8 reads") == 1


def test_a_target_that_is_too_small_is_rejected_before_samples_are_written():
    message = (
        r"a drafter is not worth its training for this target: a draft of 8 would take 2.\d+ of the time of a verify of 9,"
        r" so decoding would be 0.\d+ times as fast as without drafts \(at least 1.2 is needed\)"
    )
    with pytest.raises(SystemExit, match=message):
        estimate.distillation_seconds(automatic("--minutes", "5"), Target(TINY), "cpu")


REFUSED = {
    "--kind": "reader",
    "--source": "0,1",
    "--rank": "128",
    "--shortlist": "0",
    "--init": "drafter.pt",
    "--from-target": None,
}


@pytest.mark.parametrize("option", REFUSED)
def test_an_option_that_would_have_no_effect_is_rejected(option):
    words = [option, *filter(None, [REFUSED[option]])]
    distill.check(settings(*words, *(["--kind", "separate"] if option == "--from-target" else [])))
    with pytest.raises(SystemExit, match=f"^{option} must not be given with --shape auto$"):
        distill.check(automatic(*words))


def test_the_automatic_shape_is_for_one_method():
    with pytest.raises(SystemExit, match="--method must be c with --shape auto, got independent"):
        distill.check(automatic("--method", "independent"))


def test_without_options_the_shape_is_the_default_one():
    distill.check(settings())
    shaped = distill.shaped(settings("--rank", "16"), TINY)
    assert (shaped.kind, shaped.source, shaped.rank, shaped.shortlist) == ("reader", "0,1,3", 16, 0)


def test_a_shortlist_needs_two_tokens_and_samples():
    with pytest.raises(SystemExit, match="--shortlist must be 0 or an integer of at least 2, got 1"):
        settings("--shortlist", "1")
    args = distill.shaped(settings("--shortlist", "2"), TINY)
    with pytest.raises(SystemExit, match="--shortlist must be 0 without samples, got 2"):
        distill.untrained(args, Target(TINY), None)
    args.shortlist = 0
    assert distill.untrained(args, Target(TINY), None).shortlist is None

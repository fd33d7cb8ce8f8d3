"""Tests the cost model, and the shapes that `distill --shape auto` chooses by it."""

import argparse
from dataclasses import replace

import pytest
import torch

from ptp_train.cli import commands
from ptp_train.model import cost
from ptp_train.model.drafter_config import DrafterConfig
from ptp_train.model.transformer import Config, Target, parameters_of
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
    deeper = replace(found, source=(0, *(n + 2 for n in (found.source + found.source)[1:3])))
    assert cost.draft_cost(deeper).ms > cost.verify_cost(target).ms / 3


def settings(*words: str) -> argparse.Namespace:
    return commands.parse("distill", ["--steps", "10", "--shape", "auto", *words])


def test_distill_takes_the_chosen_shape(capsys):
    given = settings("--source", "0,5,9")
    shaped = distill.shaped(given, QWEN)
    config = distill.drafter_config(shaped, QWEN)
    assert config == replace(cost.chosen(DrafterConfig(QWEN)), length=config.length)
    assert given.source == "0,5,9"  # The settings of a recipe's step stay as they are.
    assert "a draft of 8 reads" in capsys.readouterr().out


def test_a_target_that_is_too_small_is_rejected_before_samples_are_written(tmp_path):
    message = "--shape must be given for this target: a draft of 8 would take 2.* of a verify of 9"
    with pytest.raises(SystemExit, match=message):
        estimate.distillation_seconds(settings("--minutes", "5"), Target(TINY), "cpu")
    with pytest.raises(SystemExit, match="--method must be c with --shape auto, got independent"):
        distill.check(settings("--method", "independent"))

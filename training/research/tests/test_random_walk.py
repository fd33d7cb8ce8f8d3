"""Tests that the random walk follows its distribution."""

import json

import numpy as np
import pytest
import torch

from research import random_walk
from research.__main__ import main
from research.random_walk import Walk


@pytest.mark.parametrize("deviation", [6, 100])
def test_the_walk_follows_its_law(deviation):
    """Compares frequencies of the tokens reached from near one end, where the walk is reflected."""
    pairs, law = 40_000, Walk(vocab=64, momentum=0.8, deviation=deviation)
    noise = np.random.default_rng(3).normal(scale=law.deviation, size=pairs)
    mean = 4 + law.momentum * (4 - 9)
    places = [random_walk.fold(round(mean + e), law.vocab) for e in noise]
    seen = np.bincount(places, minlength=law.vocab) / pairs
    p = random_walk.probabilities(law, torch.tensor([9]), torch.tensor([4]))[0].numpy()
    assert p.sum() == pytest.approx(1)
    assert abs(seen - p).max() < 0.006  # 5 standard deviations of the most frequent token
    assert p[:3].sum() > (0.3 if deviation == 6 else 0.03)


@pytest.mark.parametrize("momentum", [0.0, 0.8])
def test_no_model_can_be_better_than_the_law(momentum, tmp_path, capsys):
    main(["random-walk", "--out", str(tmp_path), "--tokens", "200000", "--seed", "1", "--momentum", str(momentum)])
    facts = json.loads(capsys.readouterr().out)
    ids = np.load(tmp_path / "held_files.npy")
    assert len(ids) == facts["held_files"]["tokens"] == 4000
    assert len(json.loads((tmp_path / "tokenizer.json").read_text())["model"]["vocab"]) == 128
    # The exponential of the noise's entropy, without reflection.
    free = Walk.deviation * np.sqrt(2 * np.pi * np.e)
    assert 0.8 * free < facts["held_files"]["perplexity"] < free
    train = np.load(tmp_path / "train.npy").astype(int)
    counted = np.zeros((128, 128)) + 0.01
    np.add.at(counted, (train[:-1], train[1:]), 1)
    by_pairs = np.exp(-np.log((counted / counted.sum(1, keepdims=True))[ids[:-1], ids[1:]]).mean())
    assert facts["held_files"]["perplexity"] < (0.7 if momentum else 1.0) * by_pairs

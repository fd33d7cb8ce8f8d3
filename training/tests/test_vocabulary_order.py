"""Tests the `spread` order: rivals are far apart, every token occurs once, and the tokens are the same under new ids."""

import numpy as np
import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from ptp_train.data import vocabulary_order
from ptp_train.data.vocabulary_order import relabelled, rivalry, spread


def text(vocab: int, length: int = 40_000) -> np.ndarray:
    """Returns ids in groups of four neighbours (4k .. 4k + 3) that are plausible at the same place."""
    rng = np.random.default_rng(0)
    groups = np.arange(length) % (vocab // 4)
    return groups * 4 + rng.integers(0, 4, length)


def share_cut(tokens: np.ndarray, order: np.ndarray) -> float:
    """Returns the share of all rivalry that the first decision separates."""
    vocab = len(order)
    w = rivalry(tokens, np.arange(vocab), vocab)
    left = np.argsort(order) < 1 << (vocab - 1).bit_length() - 1
    return w[left[:, None] != left].sum() / w.sum()


@pytest.mark.parametrize("vocab", [64, 100, 257])
def test_rivals_end_up_in_different_halves(vocab):
    tokens = text(vocab)
    order = spread(tokens, vocab, 7)
    assert order[0] == 7
    assert sorted(order) == list(range(vocab))
    assert share_cut(tokens, np.arange(vocab)) < 0.02
    if vocab == 64:  # For other sizes, the halves differ too much to split every group.
        assert share_cut(tokens, order) > 0.6  # 2/3 at most: two of four on each side
    else:
        assert share_cut(tokens, order) > share_cut(tokens, np.random.default_rng(1).permutation(vocab))


def test_rare_tokens_fill_the_halves(monkeypatch):
    monkeypatch.setattr(vocabulary_order, "ARRANGED", 32)
    order = spread(text(64), 100, 0)
    assert order[0] == 0
    assert sorted(order) == list(range(100))


def test_a_relabelled_tokenizer_splits_text_as_before():
    tokenizer = Tokenizer(models.BPE({"<s>": 0, "a": 1, "b": 2, "ab": 3, "aba": 4}, [("a", "b"), ("ab", "a")]))
    tokenizer.add_special_tokens(["<s>"])
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    order = np.array([0, 3, 4, 1, 2])
    new = relabelled(tokenizer, order)
    for sample in ("abab", "<s>aabba", "b"):
        assert new.encode(sample).tokens == tokenizer.encode(sample).tokens
        assert [order[i] for i in new.encode(sample).ids] == tokenizer.encode(sample).ids
        assert new.decode(new.encode(sample).ids) == tokenizer.decode(tokenizer.encode(sample).ids)

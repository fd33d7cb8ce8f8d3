"""Trains the byte-level BPE tokenizer and turns the corpus into arrays of token ids."""

import argparse
import json
import pathlib
from collections.abc import Iterator

import numpy as np
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

END_OF_TEXT = "<|endoftext|>"
"""Token 0: stands before every document, and ends one."""


def texts(path: pathlib.Path) -> Iterator[str]:
    """The documents of one .jsonl file of the corpus."""
    with path.open(encoding="utf8") as f:
        for line in f:
            yield json.loads(line)["text"]


def train(corpus: pathlib.Path, vocab_size: int) -> Tokenizer:
    """A byte-level BPE of `vocab_size` tokens, trained on every fourth document of the training split."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    sample = (text for i, text in enumerate(texts(corpus / "train.jsonl")) if i % 4 == 0)
    tokenizer.train_from_iterator(sample, trainer)
    return tokenizer


def encode(tokenizer: Tokenizer, corpus: pathlib.Path, split: str, out: pathlib.Path) -> dict:
    """Writes out/{split}.npy: int16 ids of all documents, each after one END_OF_TEXT. Returns bytes and tokens."""
    ids: list[np.ndarray] = []
    size = 0
    batch: list[str] = list(texts(corpus / f"{split}.jsonl"))
    for start in range(0, len(batch), 256):
        for text, encoding in zip(
            batch[start : start + 256], tokenizer.encode_batch(batch[start : start + 256]), strict=True
        ):
            size += len(text.encode())
            ids.append(np.array([0, *encoding.ids], dtype=np.int16))
    array = np.concatenate(ids)
    np.save(out / f"{split}.npy", array)
    return {"bytes": size, "tokens": len(array), "documents": len(ids)}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--corpus", type=pathlib.Path, default=pathlib.Path("work/corpus"))
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("work/tokens"))
    parser.add_argument("--vocab-size", type=int, default=2048)


def run(args: argparse.Namespace) -> None:
    if not 512 <= args.vocab_size <= 32768:
        raise SystemExit(f"--vocab-size must be in [512, 32768], got {args.vocab_size}")
    args.out.mkdir(parents=True, exist_ok=True)
    tokenizer = train(args.corpus, args.vocab_size)
    tokenizer.save(str(args.out / "tokenizer.json"))
    facts = {s: encode(tokenizer, args.corpus, s, args.out) for s in ("train", "held_files", "held_packages")}
    (args.out / "tokens.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf8")
    print(json.dumps(facts))

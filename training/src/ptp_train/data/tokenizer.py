"""Trains a byte-level BPE tokenizer, or uses an existing one, and encodes the corpus as arrays of token ids.

Also writes the chat template that will go into the model folder.
"""

import argparse
import json
import pathlib
from collections.abc import Iterator

import numpy as np
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from ..cli.settings import integer, planned, require
from ..model.transformer import read_checkpoint
from .vocabulary_order import relabelled, spread

END_OF_TEXT = "<|endoftext|>"
"""Token 0 of tokenizers trained here. It separates documents and ends a text."""
PLAIN_TEMPLATE = "{% for message in messages %}{{ message.content + '\n' }}{% endfor %}"
"""Default chat template, which writes each message on a line of its own."""
SPLITS = ("train", "held_files", "held_packages")


def texts(path: pathlib.Path) -> Iterator[str]:
    """Yields the texts in one .jsonl file of the corpus."""
    with path.open(encoding="utf8") as f:
        for line in f:
            yield json.loads(line)["text"]


def train(corpus: pathlib.Path, vocab_size: int) -> Tokenizer:
    """Returns a byte-level BPE of `vocab_size` tokens, trained on every fourth document of the training split."""
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


def encode(tokenizer: Tokenizer, corpus: pathlib.Path, split: str, separator: int, out: pathlib.Path) -> dict:
    """Writes out/{split}.npy, which contains the ids of all documents, with a `separator` before each document, in the
    smallest sufficient unsigned type.

    Returns the numbers of bytes, tokens and documents.
    """
    kind = np.uint16 if tokenizer.get_vocab_size() <= 2**16 else np.uint32
    ids: list[np.ndarray] = [np.empty(0, kind)]
    size = 0
    batch: list[str] = list(texts(corpus / f"{split}.jsonl"))
    for start in range(0, len(batch), 256):
        some = batch[start : start + 256]
        for text, encoding in zip(some, tokenizer.encode_batch(some, add_special_tokens=False), strict=True):
            size += len(text.encode())
            ids.append(np.array([separator, *encoding.ids], dtype=kind))
    array = np.concatenate(ids)
    np.save(out / f"{split}.npy", array)
    return {"bytes": size, "tokens": len(array), "documents": len(batch)}


def ordered(tokenizer: Tokenizer, corpus: pathlib.Path, separator: int) -> Tokenizer:
    """Returns a tokenizer with the same tokens in the `spread` order, which is computed from every fourth document of
    the training split. The separator gets id 0.
    """
    sample = [text for i, text in enumerate(texts(corpus / "train.jsonl")) if i % 4 == 0]
    ids = [[separator, *e.ids] for e in tokenizer.encode_batch(sample, add_special_tokens=False)]
    return relabelled(tokenizer, spread(np.concatenate(ids), tokenizer.get_vocab_size(), separator))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--corpus", type=pathlib.Path, default=pathlib.Path("work/corpus"), help="folder of the .jsonl files")
    add("--out", type=pathlib.Path, default=pathlib.Path("work/tokens"), help="folder for tokenizer and tokens")
    add(
        "--chat-template", type=pathlib.Path, help="template that turns chats into text (default: one line per message)"
    )
    add(
        "--vocab-size",
        type=integer(257, 32768),
        default=2048,
        help="number of tokens of the new tokenizer; 257 means single bytes",
    )
    add("--use", type=pathlib.Path, help="use this tokenizer.json instead of training one")
    add(
        "--order",
        choices=("spread", "kept"),
        help="order of token ids: spread keeps tokens that are plausible at the same place far apart, "
        "kept leaves the ids unchanged (default: spread; with --use, kept)",
    )
    add(
        "--separator",
        help=f"token before every document (default: {END_OF_TEXT}; with --use, the token that begins or ends texts of --target)",
    )
    add(
        "--target",
        type=pathlib.Path,
        default=pathlib.Path("work/target.pt"),
        help="imported target that --use belongs to",
    )


def check(args: argparse.Namespace) -> None:
    coming = args.target.exists() or planned(args, args.target)
    require(
        not args.use or bool(args.separator or coming),
        f"--separator must be given with --use if {args.target} does not exist",
    )


def separator_of(tokenizer: Tokenizer, args: argparse.Namespace) -> int:
    """Returns the id of the token before every document."""
    if args.use and not args.separator:
        special = read_checkpoint(args.target).get("special_tokens")
        require(special is not None, f"--separator must be given, because {args.target} is not an imported target")
        begin = special["begin_of_text"]
        return special["end_of_text"] if begin is None else begin
    token = tokenizer.token_to_id(args.separator or END_OF_TEXT)
    require(token is not None, f"--separator must be a token of the tokenizer, got {args.separator or END_OF_TEXT}")
    return token


def run(args: argparse.Namespace) -> None:
    args.out.mkdir(parents=True, exist_ok=True)
    tokenizer = Tokenizer.from_file(str(args.use)) if args.use else train(args.corpus, args.vocab_size)
    separator = separator_of(tokenizer, args)
    order = args.order or ("kept" if args.use else "spread")
    if order == "spread":
        tokenizer, separator = ordered(tokenizer, args.corpus, separator), 0
    if not args.use or order == "spread":
        tokenizer.save(str(args.out / "tokenizer.json"))
    elif args.use.resolve() != (args.out / "tokenizer.json").resolve():
        (args.out / "tokenizer.json").write_bytes(args.use.read_bytes())
    template = args.out / "chat_template.jinja"
    if args.chat_template or not (
        args.use and template.exists()
    ):  # An imported model keeps the template that import-hf wrote.
        text = args.chat_template.read_text(encoding="utf8") if args.chat_template else PLAIN_TEMPLATE
        template.write_text(text, encoding="utf8")
    facts = {split: encode(tokenizer, args.corpus, split, separator, args.out) for split in SPLITS}
    (args.out / "tokens.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf8")
    print(json.dumps(facts))

"""Writes a model in the shape of Qwen3-0.6B, with random weights and a made-up tokenizer of 151,936 tokens.

    PYTHONPATH=training/src python bench/random_qwen3.py FILE            # GGUF file, q8_0, 0.6 GB
    PYTHONPATH=training/src python bench/random_qwen3.py FOLDER --folder # model folder, int8, 0.9 GB
    PYTHONPATH=training/src python bench/random_qwen3.py FILE --small    # two narrow layers, 11 MB

With it, engines can be measured without a download (docs/engines.md, "Cost of sampling"; docs/results.md, "Engines").
"""

import argparse
import itertools
import pathlib

import torch
from ptp_train.export import portable, to_gguf
from ptp_train.export.model_folder import Form, write_folder
from ptp_train.model.transformer import Config, Target
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers

VOCABULARY = 151_936
SIZES = {"width": 1024, "hidden": 3072, "layers": 28, "heads": 16, "kv_heads": 8, "head_width": 128}
SMALL = {"width": 64, "hidden": 192, "layers": 2, "heads": 2, "kv_heads": 1, "head_width": 32}


def tokenizer() -> Tokenizer:
    """Returns a byte-level BPE whose tokens are bytes, pairs of bytes, and pairs followed by a byte."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    pairs = list(itertools.product(alphabet, alphabet))
    triples = ((a + b, c) for c in alphabet for a, b in pairs)
    merges = pairs + list(itertools.islice(triples, VOCABULARY - 1 - len(alphabet) - len(pairs)))
    names = alphabet + [a + b for a, b in merges]
    bpe = Tokenizer(models.BPE({name: i for i, name in enumerate(names)}, merges))
    split = pre_tokenizers.Split(Regex(to_gguf.QWEN2_WORDS), "isolated")
    by_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    bpe.pre_tokenizer = pre_tokenizers.Sequence([split, by_bytes])
    bpe.decoder = decoders.ByteLevel()
    bpe.add_special_tokens(["<|endoftext|>"])
    return bpe


def random_target(sizes: dict) -> Target:
    """Returns a target of the given sizes. Its weights are about as large as trained weights."""
    torch.manual_seed(0)
    target = Target(Config(vocab=VOCABULARY, context=40_960, rope_theta=1e6, qk_norm=True, **sizes)).eval()
    with torch.no_grad():
        for p in target.parameters():
            if p.ndim > 1:
                p.normal_(std=0.1 if p.shape[0] == VOCABULARY else p.shape[1] ** -0.5)
            p.copy_(p.bfloat16())  # Real checkpoints have bfloat16 weights.
    return target


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("path", type=pathlib.Path)
    parser.add_argument(
        "--folder", action="store_true", help="write a model folder for the server instead of a GGUF file"
    )
    parser.add_argument("--small", action="store_true")
    args = parser.parse_args()
    target = random_target(SMALL if args.small else SIZES)
    name = "random-qwen3-small" if args.small else "random-qwen3-0.6b"
    if args.folder:
        form = Form(precision="int8", storage="exact")
        template = b"{% for message in messages %}{{ message.content }}{% endfor %}"
        write_folder(target, None, tokenizer().to_str().encode(), args.path, name, {}, form, chat_template=template)
    else:
        model = portable.PortableTarget(name, target, tokenizer().to_str(), None, VOCABULARY - 1)
        to_gguf.write(model, args.path, "q8_0")


if __name__ == "__main__":
    main()

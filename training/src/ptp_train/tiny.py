"""Writes a tiny random pair, which the server's tests run: real graphs, milliseconds, no sense in what they say."""

import argparse
import math
import pathlib

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from torch import nn

from .export import write_folder
from .model import Config, Drafter, DrafterConfig, Target
from .tokenizer import END_OF_TEXT

CREATED = "2026-01-01T00:00:00Z"


def byte_tokenizer() -> bytes:
    """tokenizer.json with END_OF_TEXT and one token per byte."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({c: i for i, c in enumerate([END_OF_TEXT, *alphabet])}, []))
    tokenizer.add_special_tokens([END_OF_TEXT])
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer.to_str().encode()


@torch.no_grad()
def liven(module: nn.Module) -> None:
    """Random weights large enough that an untrained network's answers depend on all that it sees."""
    for name, p in module.named_parameters():
        if p.ndim == 2:
            p.normal_(std=0.4 if "embedding" in name else 1 / math.sqrt(p.shape[1]))
        else:
            p.add_(torch.randn_like(p) * 0.1)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("../test/models/tiny"))


def run(args: argparse.Namespace) -> None:
    torch.manual_seed(0)
    config = Config(vocab=257, width=64, layers=3, heads=4, kv_heads=2, head_width=16, hidden=160, context=256)
    target = Target(config)
    drafter = Drafter(DrafterConfig(config, (0, 1), length=8, frequencies=8), target)
    liven(target)
    liven(drafter)
    curve = [0.0, 0.5, 0.75, 0.87, 0.93, 0.96, 0.98, 0.99, 1.0]
    facts = {"created": CREATED, "drafter": {"yield_curve": curve, "accuracy_by_position": [0.5] * 8}}
    write_folder(target.eval(), drafter.eval(), byte_tokenizer(), args.out, "tiny", facts)

"""Where and how things are computed: on a GPU compiled and in bfloat16, on a CPU in float32 by default; seeds; threads."""

import argparse
import contextlib
import random
from collections.abc import Callable

import numpy as np
import torch
from torch import nn


def device() -> str:
    """`cuda` where PyTorch finds a GPU, else `cpu`. On a GPU the float32 products that remain may use TF32."""
    if not torch.cuda.is_available():
        return "cpu"
    torch.set_float32_matmul_precision("high")
    return "cuda"


PRECISIONS = ("float32", "bfloat16")


def add_precision(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--precision",
        choices=PRECISIONS,
        default="bfloat16" if torch.cuda.is_available() else "float32",
        help="of matrix products in training, weights stay float32; bfloat16 is several times faster on CPUs with "
        "AVX-512 BF16 or AMX, and slower on others",
    )


def autocast(device: str, precision: str) -> contextlib.AbstractContextManager:
    """The context to run a model in: products in bfloat16 (weights stay float32), or no change."""
    return torch.autocast(device, torch.bfloat16) if precision == "bfloat16" else contextlib.nullcontext()


def compiled(module: nn.Module, device: str) -> Callable:
    """What to call in the training loop in place of `module`: compiled on CUDA, the module itself on a CPU.

    Only calls (`forward`) are compiled. Weights are shared, so save and measure `module`, not what this returns.
    """
    return torch.compile(module) if device == "cuda" else module


def seed_everything(seed: int, step: int = 0) -> None:
    """Seeds Python, NumPy and PyTorch (CPU and CUDA) from (seed, step): call it with the step that a run resumes at.

    For data that must be the same whether or not a run was interrupted, use `step_generator` instead of global state.
    """
    mixed = int(np.random.SeedSequence((seed, step)).generate_state(1, np.uint32)[0])
    random.seed(mixed)
    np.random.seed(mixed)
    torch.manual_seed(mixed)


def step_generator(seed: int, step: int) -> np.random.Generator:
    """The random numbers of one step, a function of (seed, step): a resumed run draws what an unbroken one would."""
    return np.random.default_rng((seed, step))


def use_threads(count: int) -> None:
    """CPU threads inside one operation."""
    torch.set_num_threads(count)

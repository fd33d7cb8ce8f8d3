"""Device, precision, compilation, seeds and threads. The default is compiled bfloat16 on a GPU and float32 on a CPU."""

import argparse
import contextlib
import random
from collections.abc import Callable

import numpy as np
import torch
from torch import nn


def device() -> str:
    """Returns `cuda` if PyTorch finds a GPU, else `cpu`. On a GPU, float32 products may use TF32."""
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
        help="number format of matrix products in training; weights stay float32. bfloat16 is several times faster on CPUs with "
        "AVX-512 BF16 or AMX, and slower on others",
    )


def autocast(device: str, precision: str) -> contextlib.AbstractContextManager:
    """Returns a context in which products are computed in `precision`. Weights stay float32."""
    return torch.autocast(device, torch.bfloat16) if precision == "bfloat16" else contextlib.nullcontext()


def compiled(module: nn.Module, device: str) -> Callable:
    """Returns the callable for the training loop: `module` compiled on CUDA, unchanged on a CPU.

    Only `forward` is compiled. Weights are shared: save and measure `module`, not the returned callable.
    """
    return torch.compile(module) if device == "cuda" else module


def seed_everything(seed: int, step: int = 0) -> None:
    """Seeds Python, NumPy and PyTorch (CPU and CUDA) from (seed, step), where step is the step at which the run
    resumes.

    Data that must not depend on interruptions comes from `step_generator`.
    """
    mixed = int(np.random.SeedSequence((seed, step)).generate_state(1, np.uint32)[0])
    random.seed(mixed)
    np.random.seed(mixed)
    torch.manual_seed(mixed)


def step_generator(seed: int, step: int) -> np.random.Generator:
    """Returns a generator of random numbers that depend only on (seed, step), so that a resumed run draws the same
    batches.
    """
    return np.random.default_rng((seed, step))


def use_threads(count: int) -> None:
    """Sets the number of CPU threads of one operation."""
    torch.set_num_threads(count)

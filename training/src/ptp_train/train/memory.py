"""Batch sizes that fit the memory of this machine."""

import os

import torch

from ..model.transformer import Config, Target, parameters_of

SHARE = 0.6
"""Share of the memory that training may fill. The rest is for gradients, the optimiser and other processes."""
COPIES = 6
"""Number of float32 arrays with the size of a distribution that exist at once: logits, probabilities, sorted
probabilities, gradients.
"""
FLOAT = 4


def memory_of(place: str) -> int:
    """Returns the size of the device's memory in bytes."""
    if place == "cuda":
        return torch.cuda.get_device_properties(0).total_memory
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def budget(target: Target, place: str) -> int:
    """Returns the number of bytes for batches."""
    return int(SHARE * memory_of(place)) - FLOAT * parameters_of(target)


def distribution_bytes(vocab: int) -> int:
    """Returns the number of bytes that a distribution over `vocab` tokens takes while a batch is computed."""
    return COPIES * FLOAT * vocab


def row_bytes(c: Config) -> int:
    """Returns the number of bytes of one token's keys and values."""
    return FLOAT * 2 * c.layers * c.kv_heads * c.head_width


def fitting(option: str, wanted: int, each: int, space: int, least: int = 1) -> int:
    """Returns `wanted`, or a smaller number if `wanted` items of `each` bytes do not fit into `space` bytes. Prints the
    smaller number.
    """
    fits = max(least, space // each)
    if fits >= wanted:
        return wanted
    print(f"{option} is {fits} instead of {wanted}, so that a batch fits into the memory of this machine", flush=True)
    return fits

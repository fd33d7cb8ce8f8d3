"""The uniforms of engine/src/sampling/uniforms.ts, for many positions of several seeds at once.

Computed on the host, while the device runs the model.
"""

import functools

import numpy as np

MULTIPLIERS = np.array([0xD2511F53, 0xCD9E8D57], np.uint64)[:, None, None]
WEYL = np.outer(np.arange(10, dtype=np.uint64), np.array([0x9E3779B9, 0xBB67AE85], np.uint64))[:, :, None, None]
"""[10 rounds, 2, 1, 1]"""
BLOCK = 64
"""Number of positions to compute at once, because the time of a call hardly depends on it."""
LOW = np.uint64(0xFFFFFFFF)
HALF = np.uint64(32)


def philox(even: np.ndarray, odd: np.ndarray, key: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Computes Philox4x32-10 (Salmon et al. 2011). All words are 32-bit numbers in uint64 arrays, which broadcast.

    even: counter words 0 and 2 [2, n, blocks]. odd: words 1 and 3. key: [2, n, 1]. Returns words 0 and 2, and words 1
    and 3 of the result.
    """
    for round_key in (key + WEYL) & LOW:
        product = MULTIPLIERS * even
        even, odd = (product >> HALF)[::-1] ^ odd ^ round_key, (product & LOW)[::-1]
    return even, odd


def uniforms(seeds: np.ndarray, positions: np.ndarray, dimensions: int) -> np.ndarray:
    """Returns float32 [n, dimensions] in [0, 1) for n pairs of a 64-bit seed and a 32-bit position."""
    seeds = seeds.astype(np.uint64)
    blocks = -(-dimensions // 4)
    even, odd = np.zeros((2, 2, len(seeds), blocks), np.uint64)
    even[0], odd[0] = positions[:, None] & 0xFFFFFFFF, np.arange(blocks)  # Positions of prompt tokens are negative.
    even, odd = philox(even, odd, np.stack([seeds & LOW, seeds >> HALF])[:, :, None])
    words = np.stack([even[0], odd[0], even[1], odd[1]], -1).reshape(len(seeds), -1)[:, :dimensions]
    return (words >> np.uint64(8)).astype(np.float32) * np.float32(2**-24)


def uniforms_of(seed: int, position: int, count: int, dimensions: int) -> np.ndarray:
    """Returns float32 [count, dimensions] for successive positions. Faster than `uniforms` for steps of a sequence."""
    first, end = position // BLOCK, -(-(position + count) // BLOCK)
    blocks = [_block(seed, number, dimensions) for number in range(first, end)]
    together = blocks[0] if len(blocks) == 1 else np.concatenate(blocks)
    return together[position - first * BLOCK :][:count]


@functools.lru_cache(maxsize=1024)
def _block(seed: int, number: int, dimensions: int) -> np.ndarray:
    positions = np.arange(number * BLOCK, (number + 1) * BLOCK)
    return uniforms(np.full(BLOCK, seed, np.uint64), positions, dimensions)

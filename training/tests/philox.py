"""Reference for the server's random numbers (engine/src/sampling/uniforms.ts), in which u is a function of seed,
position and coordinate.

The generator is Philox4x32-10 (Salmon, Moraes, Dror, Shaw 2011, "Parallel random numbers: as easy as 1, 2, 3").
"""

import numpy as np

ROUNDS = 10
MULTIPLIER = (np.uint64(0xD2511F53), np.uint64(0xCD9E8D57))
WEYL = (0x9E3779B9, 0xBB67AE85)
LOW = np.uint64(0xFFFFFFFF)
HALF = np.uint64(32)


def philox(counter: np.ndarray, key: tuple[int, int]) -> np.ndarray:
    """Maps counter [..., 4] and key, both 32-bit words, to [..., 4] random 32-bit words (as uint64)."""
    c0, c1, c2, c3 = (counter[..., i].astype(np.uint64) for i in range(4))
    k0, k1 = key
    for _ in range(ROUNDS):
        p0, p1 = MULTIPLIER[0] * c0, MULTIPLIER[1] * c2
        c0, c1, c2, c3 = ((p1 >> HALF) ^ c1 ^ np.uint64(k0), p1 & LOW, (p0 >> HALF) ^ c3 ^ np.uint64(k1), p0 & LOW)
        k0, k1 = (k0 + WEYL[0]) & 0xFFFFFFFF, (k1 + WEYL[1]) & 0xFFFFFFFF
    return np.stack([c0, c1, c2, c3], -1)


def uniforms(seed: int, first_position: int, count: int, dimensions: int = 1) -> np.ndarray:
    """Returns float32 [count, dimensions] in [0, 1) for positions first_position .. first_position + count - 1.

    The counter is (position, block of 4 coordinates, 0, 0), and the key is the 64-bit seed (low word, high word). The
    top 24 bits of a word, times 2^-24, are exact in float32.
    """
    blocks = (dimensions + 3) // 4
    counter = np.zeros((count, blocks, 4), np.uint64)
    counter[..., 0] = (np.arange(count, dtype=np.uint64) + np.uint64(first_position))[:, None]
    counter[..., 1] = np.arange(blocks, dtype=np.uint64)
    words = philox(counter, (seed & 0xFFFFFFFF, seed >> 32)).reshape(count, blocks * 4)[:, :dimensions]
    return (words >> np.uint64(8)).astype(np.float32) * np.float32(2**-24)

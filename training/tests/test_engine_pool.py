"""Tests the KV pool: exhaustion, shared blocks, copies on write, and eviction."""

import grpc
import pytest
import torch

from ptp_engine.errors import EngineError
from ptp_engine.kv_pool import KvPool, Layout, Sequence

SIZE = 4


def pool_of(blocks: int, **options) -> KvPool:
    return KvPool([Layout(1, 1, 1, torch.float32)], blocks + 1, SIZE, torch.device("cpu"), **options)


def write(pool: KvPool, number: int, at: int, tokens: list[int]) -> Sequence:
    """Writes rows whose keys are their tokens."""
    sequence = pool.get(number)
    pool.prepare(sequence, at, len(tokens))
    for i, token in enumerate(tokens, at):
        pool.keys[0][sequence.blocks[i // SIZE], i % SIZE] = token
    pool.commit(sequence, tokens)
    return sequence


def content(pool: KvPool, number: int) -> list[int]:
    sequence = pool.get(number)
    rows = pool.keys[0][sequence.blocks].flatten()[: len(sequence.tokens)]
    return rows.int().tolist()


def used(pool: KvPool) -> int:
    """Returns the number of blocks of open sequences, and checks the reference counts."""
    counts = [0] * len(pool.references)
    for sequence in pool.sequences.values():
        for block in sequence.blocks:
            counts[block] += 1
    assert counts == pool.references
    kept = sum(count > 0 for count in counts)
    assert kept + len(pool.free) + len(pool.index.unused) == len(counts) - 1
    return kept


def test_sequences_share_full_blocks():
    pool = pool_of(8)
    pool.open(1)
    write(pool, 1, 0, list(range(10)))
    pool.open(2)
    assert pool.reuse(2, [*range(9), 99, 98]) == 8
    assert content(pool, 2) == list(range(8))
    assert used(pool) == 3
    write(pool, 2, 8, [99, 98])
    assert content(pool, 2) == [*range(8), 99, 98]
    assert content(pool, 1) == list(range(10))
    assert used(pool) == 4


@pytest.mark.parametrize("writer", [1, 2])
def test_a_rollback_into_a_shared_block_copies_it(writer):
    pool = pool_of(8)
    for number in (1, 2):
        pool.open(number)
    write(pool, 1, 0, list(range(8)))
    pool.reuse(2, list(range(8)))
    write(pool, writer, 6, [50, 51, 52])
    assert content(pool, writer) == [0, 1, 2, 3, 4, 5, 50, 51, 52]
    assert content(pool, 3 - writer) == list(range(8))
    pool.open(3)
    assert pool.reuse(3, list(range(8))) == 8
    assert content(pool, 3) == list(range(8))
    used(pool)


def test_overwritten_blocks_are_not_found():
    pool = pool_of(8)
    pool.open(1)
    write(pool, 1, 0, list(range(8)))
    write(pool, 1, 5, [70])
    pool.open(2)
    assert pool.reuse(2, list(range(8))) == 4
    write(pool, 1, 6, [71, 72])
    pool.open(3)
    assert pool.reuse(3, [0, 1, 2, 3, 4, 70, 71, 72]) == 8


def test_a_full_pool_is_refused_and_the_rows_before_at_remain():
    pool = pool_of(4)
    pool.open(1)
    pool.open(2)
    write(pool, 1, 0, list(range(10)))
    write(pool, 2, 0, [7, 8])
    with pytest.raises(EngineError) as caught:
        write(pool, 2, 1, [8, 9, 10, 11])
    assert caught.value.code == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "16 rows" in caught.value.message and "2 sequences" in caught.value.message
    assert content(pool, 1) == list(range(10))
    assert content(pool, 2)[:1] == [7]
    pool.close(1)
    write(pool, 2, 1, [8, 9, 10, 11])
    assert content(pool, 2) == [7, 8, 9, 10, 11]
    used(pool)


def test_closed_sequences_are_evicted_from_their_ends():
    pool = pool_of(5)
    pool.open(1)
    write(pool, 1, 0, list(range(16)))
    pool.close(1)
    assert (pool.facts().sequences, pool.facts().bytes) == (1, 4 * SIZE * 8)
    pool.open(2)
    write(pool, 2, 0, list(range(100, 109)))
    assert pool.facts().sequences == 0
    pool.open(3)
    assert pool.reuse(3, list(range(16))) == 8
    facts = pool.facts()
    assert (facts.lookups, facts.hits, facts.reused_tokens, facts.bytes) == (1, 1, 8, 0)
    used(pool)


def test_unused_blocks_return_to_their_sequence():
    pool = pool_of(3)
    for _ in range(3):
        pool.open(1)
        rows = pool.reuse(1, list(range(9)))
        write(pool, 1, rows, list(range(rows, 9)))
        assert content(pool, 1) == list(range(9))
        pool.close(1)
    assert pool.facts().hits == 2
    assert used(pool) == 0


def test_nothing_is_kept_without_prefix_cache():
    pool = pool_of(3, keep=False)
    pool.open(1)
    write(pool, 1, 0, list(range(8)))
    pool.close(1)
    pool.open(2)
    assert pool.reuse(2, list(range(8))) == 0
    assert len(pool.free) == 3


def test_unknown_sequences_are_not_found():
    with pytest.raises(EngineError) as caught:
        pool_of(1).get(5)
    assert caught.value.code == grpc.StatusCode.NOT_FOUND

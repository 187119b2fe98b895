"""Shards: the rows of a batch and the examples of a split that each of several processes has."""

from __future__ import annotations

import pytest

from tasks.base import WHOLE, DataError, Shard


@pytest.mark.parametrize("world", [1, 2, 3, 7])
@pytest.mark.parametrize("n", [0, 1, 5, 42])
def test_parts_in_order_of_the_ranks_are_the_whole_and_equal_to_one_example(n, world):
    parts = [list(range(n))[Shard(rank, world).part(n)] for rank in range(world)]
    assert [i for part in parts for i in part] == list(range(n))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_a_single_process_has_everything():
    assert Shard() == WHOLE == Shard(0, 1)
    assert WHOLE.rows(5) == slice(0, 5)


def test_a_batch_that_does_not_divide_is_refused_with_the_next_size_that_does():
    assert [Shard(rank, 3).rows(6) for rank in range(3)] == [slice(0, 2), slice(2, 4), slice(4, 6)]
    with pytest.raises(DataError, match=r"32 .* 3 processes.*batch_size=33") as refused:
        Shard(1, 3).rows(32)
    assert refused.value.exit_code == 2
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(("rank", "world"), [(2, 2), (-1, 2), (0, 0)])
def test_a_rank_outside_the_world_is_refused(rank, world):
    with pytest.raises(ValueError, match=f"rank {rank} of {world}"):
        Shard(rank, world)

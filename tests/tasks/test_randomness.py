"""The random streams of a seed: no two draw the same numbers, and limited splits lean to neither end."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from tasks import randomness
from tasks.randomness import evenly_spread, generator

STREAMS = {name: value for name, value in vars(randomness).items() if name.isupper() and isinstance(value, int)}


@pytest.mark.parametrize("pair", list(combinations(STREAMS, 2)), ids="-".join)
def test_two_streams_of_one_seed_and_step_draw_different_numbers(pair):
    one, other = (generator(STREAMS[name], seed=3, step=5).integers(2**63, size=4) for name in pair)
    assert not set(one) & set(other)


@pytest.mark.parametrize(("n", "limit"), [(10, 3), (100, 7), (101, 100), (5, 1), (64, 8)])
def test_a_limited_split_is_as_far_from_its_start_as_from_its_end(n, limit):
    chosen = evenly_spread(n, limit)
    assert len(set(chosen)) == limit
    before, after = chosen[0], n - 1 - chosen[-1]
    assert abs(before - after) <= 1
    assert np.ptp(np.diff(chosen)) <= 1 if limit > 1 else True

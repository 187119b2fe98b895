"""Draws without replacement, many rows at once: the random parts of synthetic sequences."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]


def distinct(random: np.random.Generator, rows: int, n: int, count: int) -> Ints:
    """`[rows, count]`: in each row `count` different numbers of [0, n), in random order, all such rows equally likely;
    count ≤ n.
    """
    drawn = random.integers(n, size=(rows, count))
    for j in range(1, count):
        again = np.flatnonzero((drawn[:, :j] == drawn[:, j : j + 1]).any(1))
        while again.size:  # a number that a row already has is drawn again, so the others stay equally likely
            drawn[again, j] = random.integers(n, size=again.size)
            again = again[(drawn[again, :j] == drawn[again, j : j + 1]).any(1)]
    return drawn


def weighted_order(random: np.random.Generator, rows: int, weights: NDArray[np.float64], count: int) -> Ints:
    """`[rows, count]`: indices drawn one after the other without replacement, each in proportion to the weights of
    those left.

    Weights are positive. The smallest of exponential times with these rates comes first in proportion to its weight,
    then the next.
    """
    times = random.standard_exponential((rows, len(weights))) / weights
    return np.argsort(times, axis=1)[:, :count]

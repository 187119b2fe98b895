"""Draws of many rows at once: without replacement, and into splits that share no row."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from tasks.base import Split

Ints = NDArray[np.int64]
SPLITS: tuple[Split, ...] = ("train", "valid", "test")


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


def drawn_apart(draw: Callable[[Ints], Ints], n: int, split: Split, in_all_splits: NDArray[np.bool_]) -> Ints:
    """Rows of one split, redrawn until the split of each is this one, so that no row is in two splits.

    The content of a row decides its split: three rows of four belong to training, one of eight to validation and one of
    eight to the test. It depends neither on a seed nor on the number of rows.

    Args:
        draw: From places in [0, n), `[m]`, to random rows for them, `[m, T]`.
        n: Number of rows.
        split: Their split.
        in_all_splits: `[n]`, the rows that are kept as they are first drawn.

    Returns:
        `[n, T]`.
    """
    rows = draw(np.arange(n))
    wrong = np.flatnonzero(~in_all_splits & (split_of(rows) != SPLITS.index(split)))
    while wrong.size:
        rows[wrong] = draw(wrong)
        wrong = wrong[split_of(rows[wrong]) != SPLITS.index(split)]
    return rows


def split_of(rows_NT: Ints) -> Ints:
    """`[N]`: places in SPLITS, from a hash of each row, all of whose bits depend on all tokens."""
    code = np.zeros(len(rows_NT), dtype=np.uint64)
    for tokens_N in rows_NT.T:
        code = (code ^ tokens_N.astype(np.uint64)) * np.uint64(0x9E3779B97F4A7C15)
        code ^= code >> np.uint64(29)
    code = (code ^ (code >> np.uint64(32))) * np.uint64(0xD6E8FEB86659FD93)
    return np.array([0, 0, 0, 0, 0, 0, 1, 2])[code >> np.uint64(61)]

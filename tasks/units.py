"""Grouping the examples of a test set into the units that it is a sample of."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tasks.base import SampledUnits
from tasks.randomness import permuted

#: Units in a record, at most: more are joined at random, which keeps the variance over units unbiased and a record
#: small. Of 128, the standard error is known within 6 %.
MOST = 128


def grouped(word: str, of_example: NDArray[np.int64]) -> SampledUnits | None:
    """Examples by their unit, numbered again from 0.

    Args:
        word: what the units are, in the plural.
        of_example: any number for each unit, `[n]`, in the order of evaluation.

    Returns:
        The units, in at most `MOST` random groups, the same in every run; None where there is only one.
    """
    units, place = np.unique(of_example, return_inverse=True)
    if len(units) < 2:
        return None
    groups = permuted(np.arange(len(units)), len(units), 0, 0) % min(len(units), MOST)
    return SampledUnits(word, groups[place] if len(units) > MOST else place.astype(np.int64))


def parts(n: int, most: int = MOST) -> SampledUnits | None:
    """Equal runs of consecutive examples, where nothing better is known.

    Args:
        n: number of examples.
        most: number of parts, at most.

    Returns:
        The parts; None for a single example.
    """
    return grouped("consecutive parts", np.arange(n) * min(most, n) // n)

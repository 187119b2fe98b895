"""The noise of a finite test set: the interval of a difference over seeds and test units."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from scipy.special import stdtr

from suite.statistics.comparisons import Difference, Test
from suite.statistics.samples import Array


def over_units(
    found: Difference, one: Mapping[int, Array], other: Mapping[int, Array], counts_U: Array, test: Test
) -> Difference:
    """The same difference with the error of other seeds and another test set: both rows are compared on the same units.

    Seeds and units are crossed, as in an analysis of variance with two random factors. The variance of the difference
    is that over seeds plus that over units, less that of their interaction, which is part of both. The figures are
    ratios of totals, so units are linearised: a unit counts with its sum less the row's figure times its count.

    Args:
        found: the difference over seeds.
        one: the first row, seed → sums by unit, `[U]`; at least two seeds and two units.
        other: the second row.
        counts_U: by unit, of both rows.
        test: by which the difference over seeds was found; "paired" uses equal seeds.

    Returns:
        The difference; its degrees of freedom are Satterthwaite's.
    """
    a, b = ({seed: _linearised(sums, counts_U) for seed, sums in row.items()} for row in (one, other))
    if test == "paired":
        arms = [np.array([a[seed] - b[seed] for seed in sorted(a.keys() & b.keys())])]
        gap_U = arms[0].mean(0)
    else:
        arms = [np.array(list(row.values())) for row in (a, b)]
        gap_U = arms[0].mean(0) - arms[1].mean(0)
    units = len(counts_U)
    of_units = float((gap_U**2).sum()) / (units * (units - 1))
    shared = [_interaction(arm_SU) for arm_SU in arms]
    of_seeds = found.error**2
    variance = max(of_seeds + of_units - sum(part for part, _ in shared), of_seeds, of_units)
    if not variance:
        return found
    squares = of_seeds**2 / found.freedom + of_units**2 / (units - 1) + sum(part**2 / free for part, free in shared)
    error, freedom = math.sqrt(variance), max(variance**2 / squares, 1.0)
    p = float(2 * stdtr(freedom, -abs(found.estimate) / error))
    return replace(found, error=error, freedom=freedom, p=p)


def _linearised(sums_U: Array, counts_U: Array) -> Array:
    """What each unit adds to the row's figure, in its unit; 0 on average."""
    figure = sums_U.sum() / counts_U.sum()
    return np.asarray((sums_U - figure * counts_U) / counts_U.mean())


def _interaction(arm_SU: Array) -> tuple[float, int]:
    """The variance of a row's figure by what only a seed and a unit together explain, and its degrees of freedom."""
    seeds, units = arm_SU.shape
    free = (seeds - 1) * (units - 1)
    return float(((arm_SU - arm_SU.mean(0)) ** 2).sum()) / (free * seeds * units), free

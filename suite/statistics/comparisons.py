"""Whether two rows differ: Welch's and the paired t test, Holm's correction, and sign flips."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.special import stdtr, stdtrit

from suite.statistics.samples import Array, Scores, on_equal_seeds

Test = Literal["welch", "paired"]
#: Up to this many seeds every pattern of signs is tried; with more seeds, this power of two of them at random.
_EXACT_SEEDS = 13


@dataclass(frozen=True)
class Difference:
    """The difference of two rows in quality: positive where the first is better.

    estimate: mean difference, in the metric's unit.
    error: its standard error.
    freedom: degrees of freedom of its t distribution.
    p: two-sided, of no difference, unadjusted.
    """

    estimate: float
    error: float
    freedom: float
    p: float

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """The confidence interval of the difference.

        Args:
            level: the fraction of intervals that hold the true difference.

        Returns:
            Its ends, in the metric's unit; equal where neither row varies over seeds.
        """
        if not self.error:
            return self.estimate, self.estimate
        half = float(stdtrit(self.freedom, 0.5 + level / 2)) * self.error
        return self.estimate - half, self.estimate + half


def difference(one: Scores, other: Scores, test: Test) -> Difference:
    """Compares two rows.

    Rows that are constant over seeds tie where they are equal. Where they differ without any variation, the t statistic
    is infinite; p is then that of the most extreme of all assignments of the figures to the two rows. The variance of
    choosing a rate is added to that over seeds, which alone gives the degrees of freedom.

    Args:
        one: the first row, at least two seeds.
        other: the second row, at least two seeds.
        test: "welch" for independent seeds (Welch 1947), "paired" for differences over equal seeds.

    Returns:
        The difference.

    Raises:
        ValueError: a row has fewer than two seeds, or the paired test fewer than two equal seeds.
    """
    if test == "paired":
        pairs = on_equal_seeds([one, other])
        if len(pairs) < 2:
            raise ValueError(f"{one.name} and {other.name} have {len(pairs)} equal seeds; a paired test needs two")
        gaps = pairs[:, 0] - pairs[:, 1]
        spread = 0.0 if (gaps == gaps[0]).all() else float(gaps.std(ddof=1))
        estimate = float(gaps[0]) if not spread else float(gaps.mean())
        error = math.sqrt(spread**2 / len(gaps) + one.choice_variance + other.choice_variance)
        return _difference(estimate, error, len(gaps) - 1, 2.0 ** (1 - len(gaps)))
    n, m = len(one.by_seed), len(other.by_seed)
    if min(n, m) < 2:
        raise ValueError(f"{one.name} and {other.name} have {n} and {m} seeds; a comparison needs two of each")
    sign = 1.0 if one.higher_is_better else -1.0
    a, b = one.variance / n, other.variance / m
    freedom = (a + b) ** 2 / (a**2 / (n - 1) + b**2 / (m - 1)) if a + b else n + m - 2
    error = math.sqrt(a + b + one.choice_variance + other.choice_variance)
    return _difference(sign * (one.mean - other.mean), error, freedom, 2 / math.comb(n + m, n))


def _difference(estimate: float, error: float, freedom: float, smallest_p: float) -> Difference:
    if not error:
        return Difference(estimate, 0.0, freedom, 1.0 if estimate == 0 else smallest_p)
    return Difference(estimate, error, freedom, float(2 * stdtr(freedom, -abs(estimate) / error)))


def holm(ps: Sequence[float]) -> list[float]:
    """Adjusts p values so that the probability of any false rejection is bounded (Holm 1979).

    Args:
        ps: unadjusted p values of one family.

    Returns:
        Adjusted p values, in the same order.
    """
    adjusted = [1.0] * len(ps)
    largest = 0.0
    for position, index in enumerate(sorted(range(len(ps)), key=ps.__getitem__)):
        largest = max(largest, min(1.0, (len(ps) - position) * ps[index]))
        adjusted[index] = largest
    return adjusted


def max_t(gaps_SR: Array, seed: int = 0) -> list[float]:
    """p values adjusted by the distribution of the largest t statistic when all rows' signs are flipped together, step
    down (Westfall and Young 1993, algorithm 2.8), which uses that rows of equal seeds are correlated.

    Args:
        gaps_SR: differences in quality to the reference, [seeds, rivals].
        seed: of the patterns of signs that are drawn where there are too many to try all.

    Returns:
        Adjusted p values, one per rival; 1 for a rival without any difference.
    """
    seeds, rivals = gaps_SR.shape
    if seeds <= _EXACT_SEEDS:
        signs_PS = np.array(list(itertools.product((1.0, -1.0), repeat=seeds)))
    else:
        drawn = np.random.default_rng(seed).choice((1.0, -1.0), size=(2**_EXACT_SEEDS - 1, seeds))
        signs_PS = np.concatenate([np.ones((1, seeds)), drawn])  # the observed pattern counts, so p is never 0
    flipped_PR = np.abs(_t_statistics(signs_PS, gaps_SR))
    observed_R = flipped_PR[0]
    order = np.argsort(-observed_R, kind="stable")
    largest_PR = np.maximum.accumulate(flipped_PR[:, order[::-1]], axis=1)[
        :, ::-1
    ]  # over this rival and the weaker ones
    reached = largest_PR >= observed_R[order] * (1 - 1e-12)
    adjusted = np.empty(rivals)
    adjusted[order] = np.maximum.accumulate(reached.mean(axis=0))
    return [float(p) for p in adjusted]


def _t_statistics(signs_PS: Array, gaps_SR: Array) -> Array:
    """t of each pattern of signs and rival, [patterns, rivals]; 0 for a rival that never differs, else may be inf."""
    seeds = len(gaps_SR)
    mean_PR = signs_PS @ gaps_SR / seeds
    square_R = (gaps_SR**2).mean(axis=0)  # flips leave squares as they are
    variance_PR = np.clip(square_R - mean_PR**2, 0.0, None) * seeds / (seeds - 1)
    variance_PR[variance_PR <= 1e-14 * square_R] = 0.0
    with np.errstate(divide="ignore", invalid="ignore"):
        t_PR = mean_PR / np.sqrt(variance_PR / seeds)
    return np.where(square_R == 0, 0.0, t_PR)

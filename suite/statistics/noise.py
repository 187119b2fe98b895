"""How noisy a board is: a run's deviation, the correlation of equal seeds, and what seeds can detect."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass

from scipy.optimize import brentq
from scipy.special import fdtri, nctdtr, stdtrit

from suite.statistics.comparisons import Test
from suite.statistics.samples import Scores, on_equal_seeds

POWER = 0.8
LEVEL = 0.05


def deviation(rows: Sequence[Scores]) -> float:
    """The standard deviation of a run, pooled over rows.

    Args:
        rows: at least one row with two seeds.

    Returns:
        In the metric's unit; NaN where no row has two seeds.
    """
    several = [row for row in rows if len(row.by_seed) > 1]
    freedom = sum(len(row.by_seed) - 1 for row in several)
    if not freedom:
        return float("nan")
    return math.sqrt(sum(row.variance * (len(row.by_seed) - 1) for row in several) / freedom)


@dataclass(frozen=True)
class Correlation:
    """The correlation of equal seeds between rows.

    estimate: pooled over all pairs of rows.
    low: the lower end of its one-sided 95 % interval.
    """

    estimate: float
    low: float


def correlation(rows: Sequence[Scores]) -> Correlation:
    """The intraclass correlation of seeds over rows, ICC(3,1), with its exact F interval (Shrout and Fleiss 1979).

    Args:
        rows: at least two rows with at least two equal seeds.

    Returns:
        The correlation; 0 with a lower end of -1 where nothing varies.

    Raises:
        ValueError: fewer than two rows or two equal seeds.
    """
    values_SR = on_equal_seeds(rows)
    seeds, count = values_SR.shape
    if seeds < 2 or count < 2:
        raise ValueError(f"{count} rows with {seeds} equal seeds; a correlation needs two of each")
    centred_SR = values_SR - values_SR.mean(axis=0)
    seed_effect_S = centred_SR.mean(axis=1)
    between = count * float((seed_effect_S**2).sum()) / (seeds - 1)
    within = float(((centred_SR - seed_effect_S[:, None]) ** 2).sum()) / ((seeds - 1) * (count - 1))
    if not between + within:
        return Correlation(0.0, -1.0)
    if not within:
        return Correlation(1.0, 1.0)
    critical = float(fdtri(seeds - 1, (seeds - 1) * (count - 1), 1 - LEVEL))

    def of(ratio: float) -> float:
        return (ratio - 1) / (ratio + count - 1)

    return Correlation(of(between / within), of(between / within / critical))


def detectable(seeds: int, comparisons: int, test: Test = "welch", rho: float = 0.0) -> float:
    """The smallest true difference that a board detects with power .8 at level .05, where it is the only one (Holm's
    first step: level divided by the number of comparisons).

    Args:
        seeds: per row.
        comparisons: the size of the family.
        test: the board's test.
        rho: the correlation of equal seeds, which only the paired test uses.

    Returns:
        In standard deviations of a run.
    """
    freedom = seeds - 1 if test == "paired" else 2 * (seeds - 1)
    error = math.sqrt(2 * (1 - (rho if test == "paired" else 0.0)) / seeds)
    critical = -float(stdtrit(freedom, LEVEL / comparisons / 2))

    def missing(effect: float) -> float:
        below = float(nctdtr(freedom, effect, critical))  # NaN where scipy underflows, far from the critical value
        return 1 - (float(effect < critical) if math.isnan(below) else below) - POWER

    return error * float(brentq(missing, 0.01, 10 * critical + 10))


def break_even(seeds: int, rivals: int) -> float:
    """The correlation above which the paired test detects smaller differences than Welch's, which has twice the degrees
    of freedom.

    Args:
        seeds: per row.
        rivals: the number of rows compared with the reference.

    Returns:
        For 8 seeds .15 with 1 rival, .30 with 9, .34 with 17.
    """
    paired, welch = detectable(seeds, rivals, "paired"), detectable(seeds, rivals, "welch")
    return 1 - (welch / paired) ** 2


def choose_test(calibration: Sequence[Scores], seeds: int, rivals: int) -> Test:
    """The test of a task's boards, fixed from calibration seeds before its board is run.

    Args:
        calibration: rows on calibration seeds, which the board does not use.
        seeds: per row of the board.
        rivals: the number of rows compared with the reference.

    Returns:
        "paired" where the lower end of the correlation is above the break-even, else "welch".
    """
    return "paired" if correlation(calibration).low > break_even(seeds, rivals) else "welch"


def more_seeds(estimate: float, sigma: float, seeds: int, comparisons: int = 1, most: int = 1000) -> int | None:
    """How many more seeds each of two rows would need to be distinguished with power .8 if the true difference were the
    measured one.

    Args:
        estimate: the measured difference, in the metric's unit.
        sigma: the standard deviation of a run, in the same unit.
        seeds: that each row has.
        comparisons: the size of the family.
        most: seeds per row beyond which None is returned.

    Returns:
        0 where the seeds suffice; None where more than `most` seeds would be needed.
    """
    gap = abs(estimate)
    if not gap:
        return None
    count = bisect_left(
        range(most + 1), True, lo=max(seeds, 2), key=lambda n: detectable(n, comparisons) * sigma <= gap
    )
    return count - seeds if count <= most else None

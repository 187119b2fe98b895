"""The comparisons of a board's rows: intervals, ranks, the difference to softmax, and what a row is worth in parameters
of softmax.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from scipy.special import stdtrit

from suite.statistics.comparisons import Test
from suite.statistics.exchange import Curve, ExchangeRate, exchange_rate
from suite.statistics.noise import Correlation, choose_test, correlation, detectable, deviation
from suite.statistics.ranking import Compared, Rank, Verdict, compare_with, ranks, verdict
from suite.statistics.samples import Scores, on_equal_seeds

#: The number of rivals for which a task's test is chosen, whatever number its board has: new rows must not change it.
RIVALS = 17
#: The level of the interval that decides whether a row is equivalent to softmax.
EQUIVALENCE = 0.90


@dataclass(frozen=True)
class Figures:
    """What is known of a row beyond its mean.

    scores: its figures by seed.
    half_width: of the mean's 95 % interval, in the metric's unit.
    rank: among the rows with a rank; None for others.
    compared: its comparison with softmax; None for softmax itself, or without a softmax row.
    verdict: what may be said of it against softmax.
    exchange: what it is worth in parameters of softmax; None without a curve.
    optimism: what choosing its rate on validation added to the expectation of its figure.
    """

    scores: Scores
    half_width: float
    rank: Rank | None = None
    compared: Compared | None = None
    verdict: Verdict | None = None
    exchange: ExchangeRate | None = None
    optimism: float = 0.0


@dataclass(frozen=True)
class Noise:
    """How noisy a board is.

    deviation: of a run, pooled over rows, in the metric's unit.
    correlation: of equal seeds between rows; None where no two rows have two equal seeds.
    test: by which rows are compared.
    calibrated: the correlation of calibration seeds, which chose the test; None where there are none.
    detectable: the smallest difference to softmax that would be found with power .8, in the metric's unit; None
        without rivals.
    """

    deviation: float
    correlation: Correlation | None
    test: Test
    calibrated: Correlation | None
    detectable: float | None


def test_of(calibration: Sequence[Scores], rows: Sequence[Scores]) -> tuple[Test, Correlation | None]:
    """The test of a board, from runs with calibration seeds only.

    Args:
        calibration: rows of calibration runs, any number of seeds each.
        rows: those of the board, each with at least two seeds.

    Returns:
        The test: Welch's where there is no calibration, or where rows do not have equal seeds, which the paired test
        needs. And the correlation of the calibration, None without one.
    """
    several = [row for row in calibration if len(row.by_seed) > 1]
    if len(several) < 2 or len(on_equal_seeds(several)) < 2:
        return "welch", None
    chosen = choose_test(several, min(len(row.by_seed) for row in rows), RIVALS)
    return chosen if len(on_equal_seeds(rows)) > 1 else "welch", correlation(several)


def curve_of(sizes: Mapping[float, Scores]) -> Curve | None:
    """The softmax parameter curve.

    Args:
        sizes: factor of softmax's parameters → scores of that size.

    Returns:
        The curve; None where fewer than two sizes have two seeds.
    """
    usable = {factor: row for factor, row in sorted(sizes.items()) if len(row.by_seed) > 1}
    return Curve(tuple(usable), tuple(usable.values())) if len(usable) > 1 else None


def figures(
    rows: Sequence[Scores], ranked: Sequence[bool], reference: int | None, curve: Curve | None, test: Test
) -> list[Figures]:
    """All comparisons of a board.

    Args:
        rows: each with at least two seeds.
        ranked: whether each row has a rank; others are compared with nothing.
        reference: the index of softmax; None where it has no row.
        curve: the softmax parameter curve; None without one.
        test: the board's.

    Returns:
        The figures of each row.
    """
    places = [i for i, has_rank in enumerate(ranked) if has_rank]
    rank_of = dict(zip(places, ranks([rows[i] for i in places], test), strict=True))
    rivals = [i for i in places if i != reference] if reference in places else []
    compared = (
        compare_with(rows[reference], [rows[i] for i in rivals], test) if reference is not None and rivals else []
    )
    against = dict(zip(rivals, compared, strict=True))
    made = []
    for i, row in enumerate(rows):
        worth = exchange_rate(row, curve) if curve and i in places else None
        inner = exchange_rate(row, curve, EQUIVALENCE).interval if curve and i in against else None
        said = verdict(against[i], inner) if i in against else None
        made.append(Figures(row, half_width(row), rank_of.get(i), against.get(i), said, worth))
    return made


def noise(rows: Sequence[Scores], test: Test, calibrated: Correlation | None) -> Noise:
    """How noisy a board is.

    Args:
        rows: its ranked rows with at least two seeds.
        test: the board's.
        calibrated: the correlation that chose it.

    Returns:
        The noise.
    """
    sigma, seeds = deviation(rows), min(len(row.by_seed) for row in rows)
    several = len(rows) > 1
    rho = correlation(rows) if several and len(on_equal_seeds(rows)) > 1 else None
    smallest = detectable(seeds, len(rows) - 1, test, rho.estimate if rho else 0.0) * sigma if several else None
    return Noise(sigma, rho, test, calibrated, smallest)


def half_width(row: Scores) -> float:
    """The half-width of the 95 % interval of a row's mean.

    Args:
        row: at least two seeds.

    Returns:
        In the metric's unit.
    """
    seeds = len(row.by_seed)
    return float(stdtrit(seeds - 1, 0.975)) * math.sqrt(row.variance / seeds + row.choice_variance)

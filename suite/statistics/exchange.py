"""The exchange rate: how many parameters the reference would need for a row's figure, with its interval."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.optimize import brentq
from scipy.special import stdtr, stdtrit

from suite.statistics.noise import LEVEL
from suite.statistics.samples import Array, Scores

#: The sizes at which boards race the reference, as factors of its parameters.
SIZES = (0.75, 1.0, 1.25, 1.5)
#: At which the curve is searched for the interval's ends.
_POINTS = 400


@dataclass(frozen=True)
class ExchangeRate:
    """What a row is worth in parameters of the reference.

    estimate: the factor of parameters; None where the row lies beyond the curve or the curve is flat.
    low, high: the ends of its interval; None: unbounded, beyond that end of the curve.
    error: the standard error of the logarithm of the estimate; None without an estimate.
    beyond: "above" or "below": the row is better than the curve's largest size or worse than its smallest; else empty.
    flat: the curve does not rise with parameters, so there is no rate.
    """

    estimate: float | None
    low: float | None
    high: float | None
    error: float | None = None
    beyond: str = ""
    flat: bool = False

    @property
    def interval(self) -> tuple[float, float] | None:
        """Both ends, or None where one is unbounded."""
        return None if self.low is None or self.high is None else (self.low, self.high)


@dataclass(frozen=True)
class Curve:
    """The reference at several sizes. Between sizes, its quality is interpolated linearly in the logarithm of size.

    factors: of the reference's parameters, ascending.
    rows: the scores at each size, at least two seeds each.
    """

    factors: tuple[float, ...]
    rows: tuple[Scores, ...]

    def __post_init__(self) -> None:
        if len(self.factors) < 2 or len(self.factors) != len(self.rows) or list(self.factors) != sorted(self.factors):
            raise ValueError(f"a curve needs two or more ascending sizes with one row each, got {self.factors}")

    @cached_property
    def logs(self) -> list[float]:
        """The logarithms of the factors."""
        return [math.log(factor) for factor in self.factors]

    @cached_property
    def is_flat(self) -> bool:
        """Whether quality does not rise significantly with the logarithm of size (one-sided t of the slope, .05)."""
        x = np.concatenate([np.full(len(row.by_seed), at) for at, row in zip(self.logs, self.rows, strict=True)])
        y = np.concatenate([row.quality for row in self.rows])
        if (y == y[0]).all():
            return True
        x = x - x.mean()
        slope = float(x @ y) / float(x @ x)
        residual = y - y.mean() - slope * x
        error = math.sqrt(float(residual @ residual) / (len(x) - 2) / float(x @ x))
        return slope <= 0 or (error > 0 and float(stdtr(len(x) - 2, -slope / error)) > LEVEL)

    def weights(self, at_P: Array) -> Array:
        """The weights of the sizes' means in the interpolated quality.

        Args:
            at_P: logarithms of factors within the curve, [points].

        Returns:
            Summing to 1 over sizes, [points, sizes].
        """
        return np.stack([np.interp(at_P, self.logs, row) for row in np.eye(len(self.logs))], axis=1)


def exchange_rate(row: Scores, curve: Curve, level: float = 0.95) -> ExchangeRate:
    """Inverts the t statistic of the difference between a row and the interpolated curve (Fieller 1954): the interval
    holds the sizes at which the difference is not significant. Where they do not adjoin, it spans all of them.

    Args:
        row: at least two seeds.
        curve: of the reference.
        level: of the interval.

    Returns:
        The rate; without an estimate where the curve is flat or the row lies beyond it.
    """
    if curve.is_flat:
        return ExchangeRate(None, None, None, flat=True)
    gap = _Gap(row, curve, level)
    grid = np.linspace(curve.logs[0], curve.logs[-1], _POINTS)
    gaps = gap.of(grid)
    low, high = _bounds(gap, grid, gaps)
    crossing = np.flatnonzero((gaps[:-1] >= 0) & (gaps[1:] <= 0))
    if not len(crossing):
        return ExchangeRate(None, low, high, beyond="above" if gaps.mean() > 0 else "below")
    i = int(crossing[len(crossing) // 2])
    at = _root(gap.of, grid[i], grid[i + 1])
    return ExchangeRate(math.exp(at), low, high, error=_log_error(gap, at))


class _Gap:
    """The quality of a row above the interpolated curve, as a function of the logarithm of size."""

    def __init__(self, row: Scores, curve: Curve, level: float) -> None:
        parts = [row, *curve.rows]
        self.curve, self.level = curve, level
        self.means = np.array([each.quality.mean() for each in parts])
        self.variances = np.array([each.variance / len(each.by_seed) for each in parts])
        self.choices = np.array([each.choice_variance for each in parts])
        self.freedoms = np.array([len(each.by_seed) - 1 for each in parts])

    def of(self, at_P: Array) -> Array:
        """The gaps, [points]."""
        return self.means[0] - self.curve.weights(at_P) @ self.means[1:]

    def error(self, at_P: Array) -> tuple[Array, Array]:
        """Standard errors of the gaps and their degrees of freedom (Welch and Satterthwaite), [points] each."""
        weights = self.curve.weights(at_P)
        squares = np.concatenate([np.ones((len(weights), 1)), weights**2], axis=1)
        shares = squares * self.variances
        total, square = shares.sum(axis=1), (shares**2 / self.freedoms).sum(axis=1)
        freedom = np.divide(total**2, square, out=np.full(len(total), float(self.freedoms.sum())), where=square > 0)
        return np.sqrt(total + squares @ self.choices), freedom

    def excess(self, at_P: Array) -> Array:
        """How far the gaps exceed their critical values, [points]; at most 0 where the size is not excluded."""
        error, freedom = self.error(at_P)
        return np.abs(self.of(at_P)) - stdtrit(freedom, 0.5 + self.level / 2) * error


def _root(function: Callable[[Array], Array], low: float, high: float) -> float:
    return float(brentq(lambda at: float(function(np.array([at]))[0]), low, high))


def _bounds(gap: _Gap, grid: Array, gaps: Array) -> tuple[float | None, float | None]:
    """The ends of the interval as factors; None at an end of the curve that the data do not exclude."""
    inside = gap.excess(grid) <= 0
    if not inside.any():  # the row is beyond an end by more than its noise, or between two points of the grid
        if (gaps > 0).all():
            return math.exp(grid[-1]), None
        if (gaps < 0).all():
            return None, math.exp(grid[0])
        at = float(grid[int(np.abs(gaps).argmin())])
        return math.exp(at), math.exp(at)
    first, last = (int(i) for i in np.flatnonzero(inside)[[0, -1]])
    low = None if first == 0 else math.exp(_root(gap.excess, grid[first - 1], grid[first]))
    high = None if last == len(grid) - 1 else math.exp(_root(gap.excess, grid[last], grid[last + 1]))
    return low, high


def _log_error(gap: _Gap, at: float, step: float = 1e-3) -> float | None:
    """Standard error of the log rate: that of the gap divided by the curve's slope there."""
    ends = np.clip([at - step, at + step], gap.curve.logs[0], gap.curve.logs[-1])
    slope = -float(np.diff(gap.of(ends))[0] / np.diff(ends)[0])
    return float(gap.error(np.array([at]))[0][0]) / slope if slope > 0 else None

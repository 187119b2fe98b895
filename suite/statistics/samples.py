"""Scores of one row over seeds, and the figures that every comparison starts from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

Array = np.ndarray[tuple[int, ...], np.dtype[np.float64]]


@dataclass(frozen=True)
class Scores:
    """The figure of one configuration on each of its seeds.

    name: what the row is called.
    by_seed: seed → figure, in the metric's unit. A diverged seed holds the untrained model's figure.
    higher_is_better: the direction of the metric.
    choice_variance: what choosing a learning rate adds to the variance of the mean, in the square of the unit.
    """

    name: str
    by_seed: Mapping[int, float]
    higher_is_better: bool
    choice_variance: float = 0.0

    def __post_init__(self) -> None:
        if not self.by_seed:
            raise ValueError(f"{self.name}: no seeds")
        if not np.isfinite(list(self.by_seed.values())).all():
            raise ValueError(f"{self.name}: a figure is not finite; a diverged seed counts with the untrained model's")

    @property
    def values(self) -> Array:
        """The figures in the order of their seeds."""
        return np.array([self.by_seed[seed] for seed in sorted(self.by_seed)])

    @property
    def quality(self) -> Array:
        """The figures with the sign that makes larger ones better, in the order of their seeds."""
        return self.values if self.higher_is_better else -self.values

    @property
    def mean(self) -> float:
        """The mean over seeds, in the metric's unit; exact where all figures are equal."""
        return _exact_mean(self.values)

    @property
    def variance(self) -> float:
        """The sample variance over seeds; zero where all figures are equal, NaN for one seed."""
        values = self.values
        if len(values) < 2:
            return float("nan")
        return 0.0 if _constant(values) else float(values.var(ddof=1))


def on_equal_seeds(rows: Sequence[Scores]) -> Array:
    """The quality of several rows on the seeds that all of them have.

    Args:
        rows: at least one row.

    Returns:
        Larger is better, [seeds, rows].
    """
    seeds = sorted(set.intersection(*(set(row.by_seed) for row in rows)))
    signs = [1.0 if row.higher_is_better else -1.0 for row in rows]
    return np.array([[sign * row.by_seed[seed] for sign, row in zip(signs, rows, strict=True)] for seed in seeds])


def _constant(values: Array) -> bool:
    return bool((values == values[0]).all())


def _exact_mean(values: Array) -> float:
    return float(values[0]) if _constant(values) else float(values.mean())

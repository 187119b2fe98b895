"""What choosing a learning rate on validation does to a row's figure: its optimism and the noise that it adds."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from scipy.special import ndtr

from suite.statistics.samples import Array

#: What fraction of the squared loss of a choice counts as variance of a row. Over simulated boards of equal curves
#: (tests.simulations, 10,000 in each of 60 cells) the family error is at most .062, and the lower end of its 99 %
#: interval at most .056; with 0 it is up to .107 (outliers, rates one deviation apart). Power is within .03 of that
#: with known best rates in 51 cells. The other 9 (noise skewed, outliers or t3, rates at most one deviation apart) lose
#: .035 to .23, of which .026 to .21 already with 0: where noise has long tails, the best mean on validation tends to be
#: of a rate whose runs happen to vary more.
SHARE = 0.11


def choice_variance(valid: Mapping[float, Array], test: Mapping[float, Array], chosen: float) -> float:
    """The variance that the choice of a rate adds to the row's mean, which the spread over seeds does not show because
    all seeds share one choice: a fraction of the square of what the choice loses to the best other rate. That loss is
    taken without the one seed that speaks most for the chosen rate, since a single run in the wrong place can both
    decide a race and hide that it did.

    Args:
        valid: rate → validation figures in the order of the seeds, larger is better, of every rate of the race. A rate
            that was eliminated has fewer, those of the first seeds.
        test: the test figures of the same runs.
        chosen: the rate that validation chose, which ran on all seeds.

    Returns:
        In the square of the metric's unit; 0 where the chosen rate stays ahead of all others whatever seed is left out.

    Raises:
        ValueError: a rate ran on a single seed, or on more seeds than the chosen one.
    """
    # Of each run the mean of both figures: its noise is smaller than that of one of them, and validation alone always
    # speaks for the rate that it chose.
    figures = {rate: (valid[rate] + test[rate]) / 2 for rate in valid}
    own = figures.pop(chosen)
    return SHARE * max((_loss_without_a_seed(other, own) for other in figures.values()), default=0.0) ** 2


def _loss_without_a_seed(other: Array, own: Array) -> float:
    """How much better the other rate is, at least 0, when the seed is left out whose absence favours it most."""
    if not 2 <= len(other) <= len(own):
        raise ValueError(f"leaving out a seed needs 2 to {len(own)} seeds of a rate, got {len(other)}")
    other, own = other - own[0], own - own[0]  # so that equal constants give exactly 0
    gains = [
        np.delete(other, [seed] * (seed < len(other))).mean() - np.delete(own, seed).mean() for seed in range(len(own))
    ]
    return max(0.0, float(max(gains)))


def optimism(means: Sequence[float], sigma: float, seeds: int, rho: float) -> float:
    """What choosing the best of several arms on validation adds to the chosen arm's expected test figure beyond that of
    the truly best arm: the expectation of the largest of normal means (Clark 1961), arm after arm.

    Args:
        means: validation means of the arms, larger is better, in the metric's unit.
        sigma: the standard deviation of a run, in the same unit.
        seeds: per arm.
        rho: the correlation of validation and test over runs of one arm.

    Returns:
        In the metric's unit; 0 for one arm.
    """
    ordered = sorted(means, reverse=True)
    mean, variance = ordered[0], sigma**2 / seeds
    single = variance
    for other in ordered[1:]:
        spread = math.sqrt(variance + single)
        if not spread:
            break
        gap = (mean - other) / spread
        share, density = float(ndtr(gap)), math.exp(-(gap**2) / 2) / math.sqrt(2 * math.pi)
        first = mean * share + other * (1 - share) + spread * density
        second = (mean**2 + variance) * share + (other**2 + single) * (1 - share) + (mean + other) * spread * density
        mean, variance = first, max(second - first**2, 0.0)
    return float(np.clip(rho, 0.0, 1.0)) * (mean - ordered[0])

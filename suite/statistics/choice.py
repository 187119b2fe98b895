"""What choosing a learning rate on validation does to a row's figure: its optimism and the noise that it adds."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from scipy.special import ndtr

from suite.statistics.samples import Array

#: Of the variance between rates, the share that counts as noise of a row. In simulated boards (tests.simulations), 0
#: lets the family error of equal mixers reach .07 to .11 where rates are one deviation apart, and 1 costs .14 of power.
#: This share holds .06 in all cells but one (outliers, .08), within .03 of the power of known best rates.
SHARE = 0.15


def choice_variance(valid: Mapping[float, Array], test: Mapping[float, Array], chosen: float) -> float:
    """The variance that the choice of a rate adds to the row's mean, which the spread over seeds does not show because
    all seeds share one choice: the square of each other rate's test difference, less what seeds alone explain, times
    the probability that this rate is truly better on validation.

    Args:
        valid: rate → validation figures over seeds, of every rate that ran on all seeds, larger is better.
        test: the test figures of the same runs.
        chosen: the rate that validation chose.

    Returns:
        In the square of the metric's unit; 0 where only one rate ran on all seeds.
    """
    seeds = len(valid[chosen])
    noise_valid, noise_test = (
        2 * float(np.mean([v.var(ddof=1) for v in each.values()])) / seeds for each in (valid, test)
    )
    total = 0.0
    for rate in valid:
        if rate == chosen:
            continue
        lead = float(valid[chosen].mean() - valid[rate].mean())
        doubt = float(ndtr(-lead / math.sqrt(noise_valid))) if noise_valid else 0.5 * (lead == 0)
        gap = float(test[rate].mean() - test[chosen].mean())
        total += doubt * max(gap**2 - noise_test, 0.0)
    return SHARE * total


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

"""The interval over seeds and test units: its coverage on data whose truth is known, and cases done by hand."""

from __future__ import annotations

import numpy as np
import pytest

from suite.statistics.comparisons import difference
from suite.statistics.samples import Scores
from suite.statistics.units import over_units

SEEDS, TRUTH = 8, 0.1


def drawn(random, *, units, of_seed, of_unit, of_both):
    """Two rows of figures by seed and unit, `[2, seeds, units]`, and the units' counts: units that both rows find hard
    alike, the noise of seeds, of units in each row, and of both together.
    """
    counts = random.integers(50, 150, units).astype(float)
    shape = (2, SEEDS, units)
    values = (
        np.array([TRUTH, 0.0])[:, None, None]
        + random.normal(0, 1, units)
        + random.normal(0, of_seed, shape[:2])[..., None]
        + random.normal(0, of_unit, (2, 1, units))
        + random.normal(0, of_both, shape)
    )
    return values * counts, counts


def compared(sums, counts, test="welch"):
    rows = [dict(enumerate(row)) for row in sums]
    a, b = (Scores("", {seed: sums.sum() / counts.sum() for seed, sums in row.items()}, True) for row in rows)
    found = difference(a, b, test)
    return found, over_units(found, rows[0], rows[1], counts, test)


def covers(found) -> bool:
    low, high = found.interval()
    return low <= TRUTH <= high


@pytest.mark.parametrize("test", ["welch", "paired"])
@pytest.mark.parametrize(
    ("units", "of_seed", "of_unit", "of_both"), [(11, 0.05, 0.08, 0.05), (128, 0.05, 0.3, 0.5), (40, 0.02, 0.2, 0.0)]
)
def test_the_interval_covers_the_truth_where_seeds_alone_do_not(test, units, of_seed, of_unit, of_both):
    random, seeds, both = np.random.default_rng(1), 0, 0
    trials = 1500  # one standard error of the coverage is .6 %
    for _ in range(trials):
        sums, counts = drawn(random, units=units, of_seed=of_seed, of_unit=of_unit, of_both=of_both)
        over_seeds, with_units = compared(sums, counts, test)
        seeds, both = seeds + covers(over_seeds), both + covers(with_units)
    assert seeds / trials < 0.9
    assert 0.93 <= both / trials <= 0.97


def test_noise_of_seed_and_unit_together_is_counted_once():
    random, both = np.random.default_rng(2), 0
    for _ in range(500):
        sums, counts = drawn(random, units=64, of_seed=0.0, of_unit=0.0, of_both=0.5)
        both += covers(compared(sums, counts)[1])
    assert both / 500 >= 0.93


def test_units_that_move_both_rows_alike_add_nothing():
    random = np.random.default_rng(3)
    counts = np.full(20, 100.0)
    level = random.normal(0, 5, 20)
    sums = np.array([[(level + seed) * counts for seed in random.normal(row, 0.1, SEEDS)] for row in (0.1, 0.0)])
    over_seeds, with_units = compared(sums, counts)
    assert with_units.error == pytest.approx(over_seeds.error, rel=1e-6)
    assert with_units.interval() == pytest.approx(over_seeds.interval(), rel=1e-6)


def test_without_noise_of_seeds_the_error_is_that_of_the_mean_over_units():
    gap = np.random.default_rng(4).normal(TRUTH, 1, 30)
    sums = np.array([np.tile(gap, (SEEDS, 1)), np.zeros((SEEDS, 30))]) * 10
    _, found = compared(sums, np.full(30, 10.0))
    assert found.error == pytest.approx(gap.std(ddof=1) / np.sqrt(30))
    assert found.freedom == pytest.approx(29)

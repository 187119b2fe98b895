"""Tests of two rows: figures of scipy and of hand calculations, ties, directions."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from suite.statistics.comparisons import difference, holm, max_t
from suite.statistics.samples import Scores


def row(values, name="a", higher=True, first=0) -> Scores:
    return Scores(name, {first + i: float(v) for i, v in enumerate(values)}, higher)


def drawn(seed: int, shift=0.0, count=8) -> list[float]:
    return list(np.random.default_rng(seed).normal(shift, 1, count))


def test_welch_is_that_of_scipy_with_unequal_counts_and_deviations():
    a, b = drawn(1, count=8), [3 * v for v in drawn(2, 1, count=5)]
    found, expected = difference(row(a), row(b), "welch"), stats.ttest_ind(a, b, equal_var=False)
    assert found.p == pytest.approx(expected.pvalue, rel=1e-12)
    assert found.interval() == pytest.approx(tuple(expected.confidence_interval(0.95)), rel=1e-12)


def test_the_paired_test_is_that_of_scipy_on_the_seeds_that_both_rows_have():
    a, b = drawn(1), drawn(2, 0.5)
    found = difference(row(a), row([*b[2:], 9.0, 9.0], first=2), "paired")
    expected = stats.ttest_rel(a[2:], b[2:])
    assert found.p == pytest.approx(expected.pvalue, rel=1e-12)
    assert found.freedom == 5
    assert found.interval(0.9) == pytest.approx(tuple(expected.confidence_interval(0.9)), rel=1e-12)


@pytest.mark.parametrize("test", ["welch", "paired"])
def test_a_positive_difference_is_better_in_both_directions(test):
    good, bad = [1.0, 1.1, 0.9], [2.0, 2.2, 2.1]
    assert difference(row(good, higher=False), row(bad, higher=False), test).estimate == pytest.approx(1.1)
    assert difference(row(good), row(bad), test).estimate == pytest.approx(-1.1)


@pytest.mark.parametrize("test", ["welch", "paired"])
def test_equal_constants_tie_exactly(test):
    ones = [0.1 + 0.2] * 8  # a mean in floating point would differ from the values
    found = difference(row(ones), row(ones), test)
    assert (found.estimate, found.p, found.interval()) == (0.0, 1.0, (0.0, 0.0))


def test_unequal_constants_have_the_smallest_p_that_assignments_allow():
    found = difference(row([1.0] * 8), row([0.5] * 8), "welch")
    assert (found.estimate, found.p) == (0.5, 2 / math.comb(16, 8))
    assert difference(row([1.0] * 8), row([0.5] * 8), "paired").p == 2 / 2**8


def test_one_constant_row_is_compared_by_the_other_ones_deviation():
    values = [0.9, 0.95, 0.97, 0.92]
    found = difference(row([1.0] * 4), row(values), "welch")
    assert found.p == pytest.approx(stats.ttest_1samp(values, 1.0).pvalue)


def test_holm_is_the_hand_calculation_and_keeps_the_order_of_its_input():
    assert holm([0.04, 0.01, 0.03, 0.005]) == pytest.approx([0.06, 0.03, 0.06, 0.02])
    assert holm([0.5, 0.9]) == pytest.approx([1.0, 1.0])
    assert holm([]) == []


def naive_max_t(gaps: np.ndarray) -> list[float]:
    """Westfall and Young's step down, as loops over patterns and rivals."""
    seeds, rivals = gaps.shape

    def t(values):
        spread = values.std(ddof=1)
        return abs(values.mean()) / (spread / math.sqrt(seeds)) if spread else (math.inf if values.mean() else 0.0)

    observed = [t(gaps[:, r]) for r in range(rivals)]
    order = sorted(range(rivals), key=lambda r: -observed[r])
    adjusted, largest = [0.0] * rivals, 0.0
    for position, r in enumerate(order):
        reached = 0
        for signs in itertools.product((1, -1), repeat=seeds):
            flipped = gaps * np.array(signs)[:, None]
            reached += max(t(flipped[:, other]) for other in order[position:]) >= observed[r] - 1e-12
        largest = max(largest, reached / 2**seeds)
        adjusted[r] = largest
    return adjusted


def test_sign_flips_are_a_loop_over_all_patterns():
    gaps = np.random.default_rng(3).normal([0.0, 1.0, 2.5], 1.0, (6, 3))
    assert max_t(gaps) == pytest.approx(naive_max_t(gaps), abs=1e-12)


def test_sign_flips_of_a_rival_without_any_difference_reject_nothing():
    gaps = np.stack([np.zeros(6), np.arange(1.0, 7.0)], axis=1)
    assert max_t(gaps) == pytest.approx([1.0, 2 / 64])


def test_sign_flips_of_many_seeds_are_drawn_and_never_zero():
    gaps = np.random.default_rng(4).normal(5.0, 1.0, (30, 2))
    assert max_t(gaps) == pytest.approx([1 / 2**13] * 2)


@pytest.mark.parametrize("test", ["welch", "paired"])
def test_a_single_seed_is_refused(test):
    with pytest.raises(ValueError, match=r"a and b have|needs two"):
        difference(row([1.0]), row([2.0, 3.0], "b"), test)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_figures_that_are_not_finite_are_refused(value):
    with pytest.raises(ValueError, match="mine: a figure is not finite"):
        row([1.0, value], "mine")

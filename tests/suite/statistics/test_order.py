"""Kendall's τ of two boards' orders, and its interval over seeds."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from scipy.stats import kendalltau

from suite.statistics.order import agreement, kendall
from suite.statistics.samples import Scores


def rows(means: Sequence[float], spread: float, *, seeds: int = 3, higher: bool = True) -> list[Scores]:
    """Rows whose seeds lie evenly around their means."""
    around = np.linspace(-spread, spread, seeds)
    return [Scores(f"m{i}", dict(enumerate(mean + around)), higher) for i, mean in enumerate(means)]


@pytest.mark.parametrize("kinds", [50, 3])  # few kinds of values: ties
def test_tau_is_that_of_scipy_with_and_without_ties(kinds):
    random = np.random.default_rng(1)
    one, other = random.integers(0, kinds, (2, 40, 6)).astype(float)
    expected = [kendalltau(a, b).statistic for a, b in zip(one, other, strict=True)]
    assert kendall(one, other) == pytest.approx(np.nan_to_num(expected), abs=1e-12)


def test_equal_and_opposite_orders_far_from_noise_have_no_interval():
    one = rows([1, 2, 3, 4], 0.01)
    for means, tau in (([10, 20, 30, 40], 1.0), ([9, 8, 7, 6], -1.0)):
        found = agreement(one, rows(means, 0.01))
        assert (found.tau, found.low, found.high) == (tau, tau, tau)


def test_the_direction_of_each_boards_metric_counts():
    assert agreement(rows([1, 2, 3], 0.01), rows([3, 2, 1], 0.01, higher=False)).tau == 1.0


def test_the_interval_widens_with_noise_and_narrows_with_seeds():
    means = [1.0, 1.1, 1.2, 1.3, 1.4]
    widths = [
        found.high - found.low
        for spread, seeds in ((0.01, 3), (0.3, 3), (0.3, 40))
        for found in [agreement(rows(means, spread, seeds=seeds), rows(means, spread, seeds=seeds))]
    ]
    assert widths[0] < widths[2] < widths[1]


def test_one_interval_whichever_board_comes_first_and_however_rows_are_ordered():
    random = np.random.default_rng(3)
    for _ in range(20):  # τ has few values: an interval's end moves by .2 with the drawings
        one, other = (rows(random.normal(size=5).tolist(), 0.8) for _ in range(2))
        places = random.permutation(5)
        shuffled = [[board[i] for i in places] for board in (other, one)]
        assert agreement(one, other) == agreement(*shuffled)
    exchanged = one[1::-1] + one[2:]  # equal figures in other rows
    assert agreement(one, exchanged) == agreement(exchanged, one)


def test_the_interval_covers_the_true_tau_of_rows_with_one_order():
    """Of boards whose true orders agree in part, about 95 % of the intervals must hold the true τ."""
    random = np.random.default_rng(2)
    truths = np.array([0.0, 1.0, 2.0, 3.0, 4.0]), np.array([0.0, 2.0, 1.0, 3.0, 4.0])
    true_tau = kendalltau(*truths).statistic
    held = 0
    for _ in range(100):
        boards = [
            [Scores("", dict(enumerate(random.normal(mean, 0.8, 4))), True) for mean in truth] for truth in truths
        ]
        found = agreement(*boards)
        held += found.low - 1e-9 <= true_tau <= found.high + 1e-9
    assert held >= 90


@pytest.mark.parametrize(
    ("one", "other", "said"),
    [
        (rows([1], 0.1), rows([1], 0.1), "1 and 1 rows"),
        (rows([1, 2], 0.1), rows([1, 2, 3], 0.1), "2 and 3 rows"),
        (rows([1, 2], 0.1, seeds=1), rows([1, 2], 0.1), "no row has two seeds"),
    ],
)
def test_what_has_no_order_is_refused(one, other, said):
    with pytest.raises(ValueError, match=said):
        agreement(one, other)

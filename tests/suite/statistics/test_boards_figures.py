"""Noise, ranks, verdicts, exchange rates and means over tasks, against hand calculations and known truths."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from suite.boards.domains import Line
from suite.statistics.across import across, wins_ties_losses
from suite.statistics.choice import SHARE, choice_variance, optimism
from suite.statistics.comparisons import Difference, difference
from suite.statistics.exchange import SIZES, Curve, ExchangeRate, exchange_rate
from suite.statistics.noise import break_even, choose_test, correlation, detectable, deviation, more_seeds
from suite.statistics.ranking import Compared, Rank, compare_with, ranks, verdict
from suite.statistics.samples import Scores


def rows_of(values_SR: np.ndarray, higher=True) -> list[Scores]:
    return [Scores(f"row {i}", dict(enumerate(map(float, column))), higher) for i, column in enumerate(values_SR.T)]


def exact(mean: float, deviation: float, name="row", higher=True) -> Scores:
    """Eight seeds with exactly this mean and sample deviation."""
    shape = np.array([-1.0, 1.0] * 4)
    values = mean + deviation * shape / shape.std(ddof=1)
    return Scores(name, dict(enumerate(map(float, values))), higher)


def test_the_deviation_is_pooled_over_rows_by_degrees_of_freedom():
    rows = [
        Scores("a", {0: 0.0, 1: 2.0}, True),
        Scores("b", {0: 1.0, 1: 4.0, 2: 7.0}, False),
        Scores("c", {0: 9.0}, True),
    ]
    assert deviation(rows) == pytest.approx(math.sqrt((2.0 * 1 + 9.0 * 2) / 3))
    assert math.isnan(deviation(rows[2:]))


def test_the_correlation_recovers_the_truth_and_its_lower_end_covers_it():
    rng, rho, below = np.random.default_rng(0), 0.4, 0
    estimates = []
    for _ in range(400):
        values = math.sqrt(rho) * rng.normal(size=(8, 1)) + math.sqrt(1 - rho) * rng.normal(size=(8, 5))
        found = correlation(rows_of(values))
        estimates.append(found.estimate)
        below += found.low <= rho
    assert np.median(estimates) == pytest.approx(rho, abs=0.05)
    assert 0.92 <= below / 400 <= 0.98


def test_the_correlation_ignores_differences_between_rows_and_knows_directions():
    values = np.random.default_rng(1).normal(size=(8, 1)) + np.array([[0.0, 5.0, -3.0]])
    assert correlation(rows_of(values)).estimate == pytest.approx(1.0)
    against = [*rows_of(values[:, :1]), Scores("down", dict(enumerate(map(float, values[:, 0]))), False)]
    assert correlation(against).estimate == pytest.approx(-1.0)
    assert correlation(rows_of(np.ones((8, 3)))).low == -1.0


@pytest.mark.parametrize("comparisons", [1, 9, 153])
def test_the_detectable_difference_has_power_eight_tenths_in_simulation(comparisons):
    rng, effect = np.random.default_rng(2), detectable(8, comparisons)
    a, b = rng.normal(effect, 1, (20_000, 8)), rng.normal(0, 1, (20_000, 8))
    found = stats.ttest_ind(a, b, axis=1).pvalue <= 0.05 / comparisons
    assert found.mean() == pytest.approx(0.8, abs=0.012)


def test_detectable_differences_and_break_evens_of_eight_seeds_as_numbers():
    assert [round(detectable(8, k), 2) for k in (1, 9, 18, 153)] == [1.51, 2.10, 2.29, 2.88]
    assert [round(break_even(8, k), 2) for k in (1, 9, 17)] == [0.15, 0.30, 0.34]
    rho = break_even(8, 9)
    assert detectable(8, 9, "paired", rho) == pytest.approx(detectable(8, 9))


def test_the_test_is_paired_only_where_the_correlation_pays_for_it():
    common = np.random.default_rng(3).normal(size=(20, 1))
    noise = np.random.default_rng(4).normal(size=(20, 6))
    assert choose_test(rows_of(noise), 8, 9) == "welch"
    assert choose_test(rows_of(2 * common + noise), 8, 9) == "paired"


def test_more_seeds_are_those_at_which_the_difference_becomes_detectable():
    needed = more_seeds(1.0, 1.0, 8)
    assert needed is not None
    assert detectable(8 + needed, 1) <= 1.0 < detectable(7 + needed, 1)
    assert (more_seeds(5.0, 1.0, 8), more_seeds(0.0, 1.0, 8), more_seeds(0.001, 1.0, 8)) == (0, None, None)


def test_the_optimism_of_a_choice_is_that_of_simulated_choices():
    rng, means, sigma, rho = np.random.default_rng(5), [0.0, -0.2, -0.7], 1.0, 0.6
    drawn = rng.normal(means, sigma / math.sqrt(8), (200_000, 3))
    assert optimism(means, sigma, 8, rho) == pytest.approx(rho * drawn.max(axis=1).mean(), rel=0.02)
    assert optimism([1.0], 1.0, 8, 1.0) == 0.0
    assert optimism([1.0, 0.0], 0.0, 8, 1.0) == 0.0


def test_the_variance_of_a_choice_is_the_hand_calculation():
    own, worse, eliminated = np.array([5.0, 9.0, 4.0]), np.array([3.0, 3.0, 3.0]), np.array([4.0, 6.0])
    valid, test = {1.0: own, 2.0: worse, 3.0: eliminated}, {1.0: own, 2.0: worse, 3.0: eliminated + 2.0}
    # Without the second seed: 4.5 for the chosen rate, 3 for the second one, 5 for the one that was eliminated.
    assert choice_variance(valid, test, 1.0) == pytest.approx(SHARE * (5.0 - 4.5) ** 2)
    assert choice_variance({1.0: own}, {1.0: own}, 1.0) == 0.0


def test_a_choice_that_holds_without_any_one_seed_adds_no_variance():
    ahead = {1.0: np.array([2.0, 3.0, 4.0]), 2.0: np.array([1.0, 2.0, 1.5]), 3.0: np.array([1.0, 0.0])}
    assert choice_variance(ahead, ahead, 1.0) == 0.0
    constant = {1.0: np.full(8, 0.7), 2.0: np.full(8, 0.7), 3.0: np.full(4, 0.7)}
    assert choice_variance(constant, constant, 1.0) == 0.0


def test_the_variance_of_a_choice_needs_two_seeds_of_each_rate():
    figures = {1.0: np.array([2.0, 3.0]), 2.0: np.array([1.0])}
    with pytest.raises(ValueError, match="needs 2 to 2 seeds of a rate, got 1"):
        choice_variance(figures, figures, 1.0)


@pytest.mark.parametrize("test", ["welch", "paired"])
def test_the_variance_of_a_choice_widens_intervals_and_raises_p(test):
    one, other = exact(1.0, 0.1), exact(0.8, 0.3)
    sure, unsure = difference(one, other, test), difference(replace(one, choice_variance=0.02), other, test)
    assert unsure.error == pytest.approx(math.sqrt(sure.error**2 + 0.02))
    assert (unsure.p > sure.p, unsure.freedom) == (True, sure.freedom)
    curve = curve_of(2.0, 0.05)
    narrow, wide = (exchange_rate(replace(exact(0.2, 0.05), choice_variance=v), curve) for v in (0.0, 0.001))
    assert narrow.low is not None
    assert wide.low is not None
    assert (wide.low < narrow.low, wide.estimate) == (True, narrow.estimate)


def test_ranks_are_shared_where_no_test_separates():
    rows = [exact(3.0, 0.1), exact(2.95, 0.1), exact(1.0, 0.1), exact(2.9, 3.0)]
    assert ranks(rows, "welch") == [Rank(1, 3), Rank(1, 3), Rank(3, 4), Rank(1, 4)]
    assert [str(rank) for rank in (Rank(1, 3), Rank(2, 2))] == ["1–3", "2"]


def test_ranks_follow_the_direction_of_the_metric():
    rows = [exact(3.0, 0.1, higher=False), exact(1.0, 0.1, higher=False)]
    assert ranks(rows, "welch") == [Rank(2, 2), Rank(1, 1)]


def test_equal_constants_share_the_first_rank():
    assert ranks([exact(1.0, 0.0), exact(1.0, 0.0), exact(0.5, 0.0)], "welch") == [Rank(1, 2), Rank(1, 2), Rank(3, 3)]


def test_a_paired_board_needs_both_procedures():
    seeds = np.random.default_rng(6).normal(size=(8, 1))
    values = seeds + np.array([[0.0, 1.0, 0.02]]) + 0.05 * np.random.default_rng(7).normal(size=(8, 3))
    first, second = compare_with(rows_of(values)[0], rows_of(values)[1:], "paired")
    assert first.significant
    assert first.p == max(first.p, first.p_flips or 0.0)
    assert first.p_flips == pytest.approx(2 / 256)
    assert not second.significant
    assert compare_with(rows_of(values)[0], [], "paired") == []


def compared(p: float, estimate=1.0) -> Compared:
    return Compared(Difference(estimate, 0.1, 14, p), p)


def test_not_significant_is_undecided_unless_the_interval_of_the_rate_is_narrow():
    assert verdict(compared(0.05), (0.5, 2.0)) == "better"
    assert verdict(compared(0.01, -1.0), None) == "worse"
    assert verdict(compared(0.06), (0.89, 1.12)) == "equivalent"
    assert verdict(compared(0.06), (0.88, 1.12)) == "undecided"
    assert verdict(compared(0.06), (0.89, 1.13)) == "undecided"
    assert verdict(compared(0.9), None) == "undecided"


def curve_of(slope: float, deviation: float, higher=True) -> Curve:
    sign = 1.0 if higher else -1.0
    return Curve(SIZES, tuple(exact(sign * slope * math.log(s), deviation, higher=higher) for s in SIZES))


@pytest.mark.parametrize("higher", [True, False])
@pytest.mark.parametrize("size", [0.8, 1.0, 1.18, 1.4])
def test_the_exchange_rate_is_the_size_at_which_the_curve_meets_the_row(size, higher):
    curve = curve_of(2.0, 0.05, higher)
    found = exchange_rate(exact((1 if higher else -1) * 2.0 * math.log(size), 0.05, higher=higher), curve)
    assert found.estimate == pytest.approx(size, rel=1e-3)
    assert found.low is not None
    assert found.high is not None
    assert found.low < size < found.high


def test_the_interval_excludes_exactly_the_sizes_that_differ_significantly():
    curve, row = curve_of(2.0, 0.05), exact(2.0 * math.log(1.25), 0.08)
    found = exchange_rate(row, curve)
    assert found.low is not None
    share = (math.log(found.low) - math.log(1.0)) / (math.log(1.25) - math.log(1.0))
    weights = np.array([1.0, 1 - share, share])
    variances = np.array([0.08**2, 0.05**2, 0.05**2]) / 8
    error = math.sqrt((weights**2 * variances).sum())
    freedom = error**4 / ((weights**2 * variances) ** 2 / 7).sum()
    gap = 2.0 * (math.log(1.25) - math.log(found.low))
    assert gap / error == pytest.approx(stats.t.ppf(0.975, freedom), rel=1e-6)


def test_rates_beyond_the_curve_flat_curves_and_open_ends_are_marked():
    curve = curve_of(2.0, 0.05)
    above, below = exchange_rate(exact(3.0, 0.05), curve), exchange_rate(exact(-3.0, 0.05), curve)
    assert (above.estimate, above.beyond, above.high) == (None, "above", None)
    assert above.low == pytest.approx(1.5)
    assert (below.estimate, below.beyond, below.low) == (None, "below", None)
    assert below.high == pytest.approx(0.75)
    near = exchange_rate(exact(2.0 * math.log(1.48), 0.2), curve)
    assert near.estimate == pytest.approx(1.48, rel=1e-3)
    assert (near.high, near.interval) == (None, None)
    assert exchange_rate(exact(0.0, 1.0), curve_of(0.0, 1.0)).flat
    assert exchange_rate(exact(0.0, 1.0), curve_of(-2.0, 0.05)).flat
    assert exchange_rate(exact(1.0, 0.0), Curve(SIZES, (exact(1.0, 0.0),) * 4)).flat


def simulated_coverage(boards: int, seed: int) -> float:
    """The fraction of 95 % intervals that hold the true rate, 1.1, on a curve of three deviations from end to end."""
    rng, truth = np.random.default_rng(seed), 1.1
    points = [3.0 * math.log(s) / math.log(2) for s in SIZES]
    target, held, counted = float(np.interp(math.log(truth), np.log(SIZES), points)), 0, 0
    for _ in range(boards):
        rows = rows_of(rng.normal([*points, target], 1.0, (8, 5)))
        found = exchange_rate(rows[-1], Curve(SIZES, tuple(rows[:-1])))
        counted += not found.flat
        held += not found.flat and (found.low or 0.0) <= truth <= (found.high or math.inf)
    return held / counted


def test_the_interval_of_the_exchange_rate_covers_the_truth_in_simulation():
    assert 0.92 <= simulated_coverage(300, 8) <= 0.985


def test_the_mean_over_tasks_is_geometric_with_censored_ends_and_without_flat_curves():
    rates = {
        "a": ExchangeRate(1.2, 1.1, 1.3, error=0.05),
        "b": ExchangeRate(None, 1.5, None, beyond="above"),
        "c": ExchangeRate(None, None, None, flat=True),
    }
    found = across(rates, (0.75, 1.5))
    assert found.rate == pytest.approx(math.sqrt(1.2 * 1.5))
    assert found.low == pytest.approx(math.sqrt(1.2 * 1.5) * math.exp(-1.959964 * 0.05 / 2))
    assert (found.censored, found.flat) == (1, ("c",))
    assert across({"c": rates["c"]}, (0.75, 1.5)).rate is None


def test_rates_that_all_lie_beyond_a_curve_have_a_bound_and_no_interval():
    above = ExchangeRate(None, 1.5, None, beyond="above")
    below = ExchangeRate(None, None, 0.75, beyond="below")
    for rates, bound, mean in (
        ({"a": above, "b": above}, "≥", 1.5),
        ({"a": below}, "≤", 0.75),
        ({"a": above, "b": below}, "", math.sqrt(1.5 * 0.75)),
    ):
        found = across(rates, (0.75, 1.5))
        assert (found.low, found.high, found.bound) == (None, None, bound)
        assert found.rate == pytest.approx(mean)
    line = Line("fem", ("1",), across({"a": above}, (0.75, 1.5)), (1, 0, 0), 1.0, 1)
    assert line.cells()[0] == "≥ 1.50×; 1 beyond a curve"


def test_wins_ties_and_losses_are_counted():
    assert wins_ties_losses(["better", "equivalent", "undecided", "worse", "better"]) == (2, 2, 1)


@pytest.mark.parametrize("test", ["welch", "paired"])
@pytest.mark.parametrize("rivals", [1, 5, 9, 40, 500])
def test_the_detectable_difference_exists_for_any_board_and_shrinks_with_seeds(test, rivals):
    found = [detectable(seeds, rivals, test) for seeds in (2, 3, 5, 8, 9, 16, 17, 64, 200)]
    assert all(math.isfinite(each) and each > 0 for each in found)
    assert found == sorted(found, reverse=True)

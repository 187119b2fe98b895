"""The whole procedure on simulated boards with known truth, and the simulation held to the suite's own functions."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from suite.statistics.choice import choice_variance
from suite.statistics.race import Race, state
from suite.statistics.ranking import compare_with
from suite.statistics.samples import Scores
from tests.simulations.boards import (
    CORRELATIONS,
    FIRST,
    GAPS,
    GRID,
    NOISES,
    RATES,
    SEEDS,
    Array,
    Cell,
    Raced,
    choice_variances,
    draw,
    of_rate,
    outcome,
    race,
    rejected,
)

#: Learning rates whose ratio is 2, so that a moved window reaches exactly the next one.
ALL_RATES = tuple(2.0**i for i in range(RATES))


def race_of_suite(valid_RS: np.ndarray) -> tuple[int, list[int]]:
    """The chosen rate and the rates that ran on all seeds, by the suite's race; as indices."""
    plan = Race(tuple(ALL_RATES[i] for i in GRID), tuple(range(SEEDS)))
    scored: dict[tuple[float, int], float] = {}
    while missing := state(plan, scored).missing:
        for rate, seed in missing:
            scored[rate, seed] = float(valid_RS[ALL_RATES.index(rate), seed])
    ended = state(plan, scored)
    assert ended.chosen is not None
    return ALL_RATES.index(ended.chosen), [ALL_RATES.index(rate) for rate in ended.means]


@pytest.mark.parametrize("gap", [0.0, 0.5, 2.0])
def test_the_simulated_races_and_tests_are_those_of_the_suite(gap):
    valid, test = draw(Cell("normal", gap, 0.5, mixers=4, effect=2.0), 25, np.random.default_rng(1))
    raced = race(valid)
    choice = choice_variances(valid, test, raced)
    scores, windows_moved = of_rate(test, raced.chosen_BM), 0
    for board in range(len(valid)):
        rows = []
        for mixer in range(4):
            chosen, complete = race_of_suite(valid[board, mixer])
            windows_moved += len(complete) > 2
            assert chosen == raced.chosen_BM[board, mixer]
            assert complete == list(np.flatnonzero(raced.complete_BMR[board, mixer]))
            seeds = {i: SEEDS if i in complete else FIRST for i in {*GRID, *complete}}
            arms = [{float(i): each[board, mixer, i, :n] for i, n in seeds.items()} for each in (valid, test)]
            extra = choice_variance(arms[0], arms[1], float(chosen))
            assert extra == pytest.approx(choice[board, mixer], abs=1e-12)
            rows.append(Scores(str(mixer), dict(enumerate(scores[board, mixer].tolist())), True, extra))
        for kind, paired in (("welch", False), ("paired", True)):
            expected = rejected(scores[board : board + 1], choice[board : board + 1], paired)[0]
            found = compare_with(rows[0], rows[1:], kind)  # type: ignore[arg-type]
            by_t = [each.p_flips is None or each.p > each.p_flips for each in found]
            agree = [each.significant == bool(e) for each, e, t in zip(found, expected, by_t, strict=True) if t]
            assert all(agree)
    assert gap == 2.0 or windows_moved


def test_noises_have_mean_zero_and_deviation_one():
    for noise in NOISES:
        if noise == "unequal":
            continue
        valid, test = draw(Cell(noise, 0.0, 0.9, mixers=2), 4000, np.random.default_rng(2))
        assert abs(valid.mean()) < 0.02, noise
        assert valid.std() == pytest.approx(1.0, abs=0.06), noise
        if noise != "correlated":
            assert np.corrcoef(valid.ravel(), test.ravel())[0, 1] == pytest.approx(0.9, abs=0.03), noise


@pytest.mark.parametrize("noise", NOISES)
@pytest.mark.slow
def test_equal_mixers_are_rarely_distinguished(noise):
    for gap, correlation in product(GAPS, CORRELATIONS):
        found = outcome(Cell(noise, gap, correlation), 2000, seed=3)
        assert found.family_low <= 0.06, (noise, gap, correlation, found)


@pytest.mark.parametrize("noise", NOISES)
def test_a_race_finds_true_effects_almost_as_often_as_with_known_rates(noise):
    cell = Cell(noise, 1.0, 0.5, effect=2.2)
    raced, known = outcome(cell, 2000, seed=4), outcome(cell, 2000, seed=4, known_rate=True)
    assert raced.power >= known.power - 0.04  # .03, and .01 for 2,000 boards
    assert known.power > 0.3


@pytest.mark.parametrize("noise", ["outliers", "unequal"])
def test_equal_mixers_are_distinguished_where_choosing_adds_no_variance(noise, monkeypatch):
    cell = Cell(noise, 1.0, 0.5)
    assert outcome(cell, 2000, seed=3).family_low <= 0.06
    monkeypatch.setattr("tests.simulations.boards.SHARE", 0.0)
    assert outcome(cell, 2000, seed=3).family_low > 0.06


def test_rates_that_the_race_eliminated_count(monkeypatch):
    cell = Cell("outliers", 1.0, 0.5)
    assert outcome(cell, 2000, seed=3).family_low <= 0.06
    monkeypatch.setattr("tests.simulations.boards.choice_variances", without_eliminated)
    assert outcome(cell, 2000, seed=3).family_low > 0.06


def without_eliminated(valid_BMRS: Array, test_BMRS: Array, raced: Raced) -> Array:
    """The variances of races whose eliminated rates look hopeless."""
    hopeless = np.where(raced.complete_BMR[..., None], 0.0, -100.0)
    return choice_variances(valid_BMRS + hopeless, test_BMRS + hopeless, raced)

"""The race: the runs that it asks for, its choice, how its window moves, and that it continues after interruptions."""

from __future__ import annotations

import random

import pytest

from suite.statistics.race import Race, Scored, reachable, state, window

RATES = (1e-3, 3e-3, 9e-3)
PLAN = Race(RATES, tuple(range(8)))


def run(race: Race, quality, order=None) -> tuple[float | None, dict[tuple[float, int], float]]:
    """Runs a race to its end; `quality(rate, seed)` is the validation figure."""
    scored: dict[tuple[float, int], float] = {}
    while missing := state(race, scored).missing:
        pair = order.choice(missing) if order else missing[0]
        scored[pair] = quality(*pair)
    return state(race, scored).chosen, scored


def peak_at(best: float):
    return lambda rate, seed: -abs(rate / best - 1) + 0.01 * ((seed * 7919) % 5)


def test_a_race_is_twenty_runs_and_chooses_the_best_rate():
    chosen, scored = run(PLAN, peak_at(3e-3))
    assert (chosen, len(scored), PLAN.runs) == (3e-3, 20, 20)
    assert sorted(seed for rate, seed in scored if rate == 3e-3) == list(range(8))
    assert sorted(len([1 for rate, _ in scored if rate == each]) for each in RATES) == [4, 8, 8]


def test_the_two_that_continue_are_the_best_on_the_first_seeds():
    late = {(9e-3, seed): 100.0 for seed in range(4, 8)}  # would win on later seeds, which it never reaches
    chosen, scored = run(PLAN, lambda rate, seed: late.get((rate, seed), {1e-3: 1.0, 3e-3: 2.0, 9e-3: 0.0}[rate]))
    assert (chosen, (9e-3, 4) in scored) == (3e-3, False)


def test_the_mean_over_all_seeds_chooses_not_that_over_the_first():
    def quality(rate: float, seed: int) -> float:
        return {1e-3: 0.0, 3e-3: 2.0 if seed < 4 else 0.0, 9e-3: 1.5}[rate]

    assert run(Race(RATES, tuple(range(8)), moves=0), quality)[0] == 9e-3


@pytest.mark.parametrize(("best", "chosen", "runs"), [(27e-3, 0.027, 28 + 8), (1 / 3e3, 1 / 3e3, 36), (1e3, 0.081, 36)])
def test_the_window_moves_while_the_best_rate_is_at_its_edge_at_most_twice(best, chosen, runs):
    found, scored = run(PLAN, peak_at(best) if best < 1 else lambda rate, seed: rate)
    assert found == pytest.approx(chosen, rel=1e-5)
    assert len(scored) == runs
    new = {rate for rate, _ in scored} - set(RATES)
    assert all(sum(rate == each for rate, _ in scored) == 8 for each in new)


def test_a_move_that_does_not_help_leaves_the_choice():
    chosen, scored = run(PLAN, lambda rate, seed: {1e-3: 0.0, 3e-3: 1.0, 9e-3: 2.0}.get(rate, -5.0))
    assert (chosen, len(scored)) == (9e-3, 28)


def test_a_race_interrupted_anywhere_and_run_in_any_order_chooses_alike():
    def noisy(rate: float, seed: int) -> float:
        return random.Random(f"{rate} {seed}").gauss(0, 1)

    expected = run(PLAN, noisy)
    for seed in range(20):
        assert run(PLAN, noisy, random.Random(seed)) == expected


def test_runs_outside_the_plan_change_nothing():
    more: Scored = {(3e-3, 99): 1e9, (5.0, 0): 1e9}
    chosen, scored = run(PLAN, peak_at(3e-3))
    assert state(PLAN, {**scored, **more}) == state(PLAN, scored)
    assert chosen == 3e-3


def test_equal_figures_choose_the_smaller_rate():
    assert run(Race(RATES, (0, 1), moves=0), lambda rate, seed: 1.0)[0] == 1e-3


def test_with_all_rates_kept_every_rate_runs_on_all_seeds():
    every = Race(RATES, tuple(range(8)), kept=3)
    assert (every.runs, len(run(every, peak_at(3e-3))[1])) == (24, 24)


def test_one_rate_is_no_choice():
    assert run(Race((1e-3,), (0, 1, 2)), lambda rate, seed: 0.0) == (1e-3, {(1e-3, s): 0.0 for s in range(3)})


def test_rates_are_a_factor_of_three_apart_around_the_recipes():
    assert window(3e-3) == (1e-3, 3e-3, 9e-3)
    assert window(2e-3, count=2) == (2e-3, 6e-3)
    assert window(1e-3, count=1) == (1e-3,)


@pytest.mark.parametrize(("rates", "seeds"), [((), (0,)), ((2.0, 1.0), (0,)), ((1.0, 1.0), (0,)), ((1.0,), (0, 0))])
def test_a_plan_that_is_none_is_refused(rates, seeds):
    with pytest.raises(ValueError, match="race"):
        Race(rates, seeds)


def test_a_race_can_reach_two_rates_beyond_either_edge_and_no_other():
    assert reachable(Race((0.002, 0.006, 0.018), tuple(range(8)))) == pytest.approx(
        (0.002 / 9, 0.002 / 3, 0.002, 0.006, 0.018, 0.054, 0.162), rel=1e-5
    )
    assert reachable(Race((0.002,), tuple(range(8)))) == (0.002,)

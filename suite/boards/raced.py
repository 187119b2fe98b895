"""The race of a row: what the recipe plans, what has run, and which learning rate won on validation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import tasks
from suite.models.candidate import registered
from suite.models.resolve import shipped_config
from suite.records.schema import Record
from suite.statistics.race import Race, State, state, window
from tasks.base import Metric

SEEDS = tuple(range(8))
#: Runs with these seeds or larger ones decide a board's test before its runs, and are in no race.
FIRST_CALIBRATION_SEED = 100


@dataclass(frozen=True)
class Raced:
    """What has run of a race.

    rates: every rate of it, ascending, those of moved windows included.
    chosen: the rate that won; None while runs are missing.
    runs: how many of its runs have ended.
    planned: how many runs it has, without moves of its window.
    finals: the runs of each rate that ran on all seeds, in the order of the seeds.
    screened: the runs of each rate with the first seeds, in the order of the seeds.
    """

    rates: tuple[float, ...]
    chosen: float | None
    runs: int
    planned: int
    finals: dict[float, tuple[Record, ...]]
    screened: dict[float, tuple[Record, ...]]


def race_of(made: Record) -> Race | None:
    """The race that the recipe plans for a run's mixer.

    Args:
        made: any record.

    Returns:
        The race; None for a baseline, which is no row of a race, and for a third party's task, whose recipe is not
        loaded.
    """
    candidate = registered(made.mixer)
    if tasks.built_in(made.task) is None or (candidate is not None and not candidate.ranked):
        return None
    return Race(window(shipped_config(made.task, made.scale).train.lr), SEEDS)


def raced(every: Sequence[tuple[Record, ...]], metric: Metric) -> tuple[Raced, tuple[Record, ...]] | None:
    """The race among configurations that differ in tuned options only.

    Args:
        every: the runs of each configuration.
        metric: the primary metric.

    Returns:
        The race, and the runs of the chosen rate in the order of the seeds (none while it is incomplete); None where
        no race is planned.
    """
    first = every[0][0]
    race = race_of(first)
    if race is None:
        return None
    recipe = shipped_config(first.task, first.scale).portable()
    runs = {
        (made.config.train.lr, made.seed): made
        for each in every
        for made in each
        if made.seed < FIRST_CALIBRATION_SEED and _only_the_rate_differs(made, recipe)
    }
    sign = 1.0 if metric.higher_is_better else -1.0
    found = state(race, {key: sign * made.metrics["valid"][made.primary_metric] for key, made in runs.items()})
    finals = {
        rate: tuple(runs[rate, seed] for seed in race.seeds)
        for rate in found.means
        if all((rate, seed) in runs for seed in race.seeds)
    }
    screened = {
        rate: tuple(runs[rate, seed] for seed in race.seeds[: race.first_seeds] if (rate, seed) in runs)
        for rate in found.rates
    }
    ran = sum((rate, seed) in runs for rate, seed in _planned(race, found))
    done = Raced(
        found.rates, found.chosen, ran, race.runs, finals, {rate: made for rate, made in screened.items() if made}
    )
    return done, finals[found.chosen] if found.chosen is not None else ()


def _planned(race: Race, found: State) -> list[tuple[float, int]]:
    return [(rate, seed) for rate in found.rates for seed in race.seeds]


def _only_the_rate_differs(made: Record, recipe: dict[str, object]) -> bool:
    own = made.config.portable()
    others = [name for name in made.config.tuned if name != "train.lr"]
    return all(own[s][name] == recipe[s][name] for s, _, name in (each.partition(".") for each in others))  # type: ignore[index]

"""The race of a row: what the recipe plans, what has run, and which learning rate won on validation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import tasks
from suite.models.candidate import registered
from suite.models.resolve import shipped_config
from suite.records.schema import Record
from suite.statistics.race import Race, state, window
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
    planned: how many runs it has, with the moves of its window so far.
    finals: the runs of each rate that ran on all seeds, in the order of the seeds.
    screened: the runs of each rate with the first seeds, in the order of the seeds.
    """

    rates: tuple[float, ...]
    chosen: float | None
    runs: int
    planned: int
    finals: dict[float, tuple[Record, ...]]
    screened: dict[float, tuple[Record, ...]]

    @property
    def ended(self) -> bool:
        """Whether all its runs have ended."""
        return self.chosen is not None


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


def raced(every: Sequence[tuple[Record, ...]], metric: Metric) -> Raced | None:
    """The race among configurations that differ in tuned options only.

    Args:
        every: the runs of each configuration.
        metric: the primary metric.

    Returns:
        What has run of the race; None where none is planned.
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
        if not other_tuned_options(made, recipe)
    }
    sign = 1.0 if metric.higher_is_better else -1.0
    found = state(race, {key: sign * made.metrics["valid"][made.primary_metric] for key, made in runs.items()})
    by_rate = {rate: [runs[rate, seed] for seed in race.seeds if (rate, seed) in runs] for rate in found.rates}
    return Raced(
        rates=found.rates,
        chosen=found.chosen,
        runs=sum(map(len, by_rate.values())),
        planned=race.runs_with(found.rates),
        finals={rate: tuple(by_rate[rate]) for rate in found.means},
        screened={
            rate: tuple(made for made in ran if made.seed in race.seeds[: race.first_seeds])
            for rate, ran in by_rate.items()
            if ran
        },
    )


def other_tuned_options(made: Record, recipe: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Tuned options other than the learning rate that differ from the recipe: such a run is in no race.

    Args:
        made: a run.
        recipe: option values by section, of `usual`.

    Returns:
        Their names, `section.option`.
    """
    own = made.config.portable()
    others = [name.split(".") for name in made.config.tuned if name != "train.lr"]
    return [f"{section}.{name}" for section, name in others if own[section][name] != recipe[section][name]]

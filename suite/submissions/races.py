"""The races in an entry's records: what they are, and runs that belong to none."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence

from suite.boards.board import group, primary_metric
from suite.boards.naming import configuration, entry_of, untuned_configuration, usual
from suite.boards.raced import FIRST_CALIBRATION_SEED, SEEDS, Raced, other_tuned_options, race_of, raced
from suite.boards.rows import has_figures
from suite.records.schema import Record
from suite.statistics.race import reachable
from suite.submissions.entry import RaceSummary


def races(records: Iterable[Record]) -> list[list[Record]]:
    """The runs of each race, those outside its plan included.

    Args:
        records: any.

    Returns:
        Records of one board that differ only in tuned options and in the seed; baselines have no race.
    """
    found: dict[tuple[int, str], list[Record]] = defaultdict(list)
    for number, of_board in enumerate(group(records)):
        for made in of_board:
            if race_of(made) is not None:
                found[number, untuned_configuration(made)].append(made)
    return list(found.values())


def summarised(records: Iterable[Record]) -> list[RaceSummary]:
    """The races as `entry.json` lists them.

    Args:
        records: any.

    Returns:
        By task, scale and mixer.
    """
    made = [_summary(runs) for runs in races(records)]
    return sorted(made, key=lambda race: (race.task, race.scale, race.mixer, race.runs))


def _summary(runs: Sequence[Record]) -> RaceSummary:
    first, race = runs[0], result(runs)
    mixer = entry_of(first, usual([first]))[:255]
    return RaceSummary(
        task=first.task,
        scale=first.scale,
        mixer=mixer,
        rates=race.rates if race else _planned_rates(first),
        chosen=race.chosen if race else None,
        runs=race.runs if race else 0,
    )


def result(runs: Sequence[Record]) -> Raced | None:
    """What has run of a race.

    Args:
        runs: of one race.

    Returns:
        Rates, the chosen one and the runs of each; None where no run has figures.
    """
    found: dict[str, list[Record]] = defaultdict(list)
    for made in runs:
        if has_figures(made):
            found[configuration(made)].append(made)
    return raced([tuple(each) for each in found.values()], primary_metric(runs[0])) if found else None


def _planned_rates(made: Record) -> tuple[float, ...]:
    planned = race_of(made)
    return planned.rates if planned else ()


def outside(runs: Sequence[Record]) -> Iterator[tuple[Record, str]]:
    """Runs that are in no race: other seeds or rates than planned, or other options tuned than the learning rate.

    Args:
        runs: of one race.

    Yields:
        The record, and why, in one line.
    """
    race, planned, recipe = result(runs), race_of(runs[0]), usual([runs[0]])
    # fewer seeds, or single rates, have no rank next to races that ended
    allowed = race.rates if race and race.ended else reachable(planned) if planned else ()
    for made in runs:
        tuned = other_tuned_options(made, recipe)
        if made.seed >= FIRST_CALIBRATION_SEED:
            continue
        if made.seed not in SEEDS:
            yield made, f"seed: {made.seed} is in no race (0 to {SEEDS[-1]}; calibration from {FIRST_CALIBRATION_SEED})"
        elif tuned:
            yield made, f"config.{tuned[0]}: only the learning rate is tuned in a race"
        elif made.config.train.lr not in allowed:
            rates = ", ".join(f"{rate:g}" for rate in allowed)
            yield made, f"config.train.lr: {made.config.train.lr:g} is no rate of the race ({rates})"

"""The rows of a board: which runs each one consists of, and why a row has no rank."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from suite.boards.figures import Figures
from suite.boards.naming import Usual, configuration, entry_of, is_retired, name_of, shown, untuned_configuration
from suite.boards.raced import FIRST_CALIBRATION_SEED, Raced, raced
from suite.config.run_config import OWN_ORIGINS
from suite.models.baseline_candidate import ORIGIN as BASELINE
from suite.records.badges import RowBadge
from suite.records.schema import Record
from suite.statistics.samples import Scores
from tasks.base import Metric

Runs = tuple[Record, ...]


@dataclass(frozen=True)
class Row:
    """The runs of one configuration, one per seed, in the order of the seeds.

    mixer: what the row is called.
    entry: what was entered, the same on the boards of all tasks: its name without solved widths and tuned rates.
    mean: of the primary metric on test, over seeds.
    spread: its sample standard deviation; None for one seed.
    race: the race that chose its learning rate; None where it had none.
    unranked: why it has no rank, in one or two words; empty where it has one.
    place: from 1, in the order of the means; None for a row without a rank.
    figures: its comparisons with the other rows; None for a single seed.
    badge: what the maintainers checked of its records; None where they are not published.
    fronts: the Pareto fronts that it is on, of `boards/pareto.py`.
    """

    mixer: str
    entry: str
    records: Runs
    mean: float
    spread: float | None = None
    race: Raced | None = None
    unranked: str = ""
    place: int | None = None
    figures: Figures | None = None
    badge: RowBadge | None = None
    fronts: tuple[str, ...] = ()

    @property
    def first(self) -> Record:
        return self.records[0]

    @property
    def diverged(self) -> dict[int, str]:
        """The seeds that diverged, which count with the untrained model's figure, and the reason of each."""
        return {made.seed: made.error or "" for made in self.records if made.status == "diverged"}


@dataclass(frozen=True)
class Chosen:
    """The runs of a row, and the race that chose among them."""

    runs: Runs
    race: Raced | None = None


@dataclass(frozen=True)
class LeftOut:
    """A run without a row, and why: other options were better on validation."""

    id: str
    reason: str


@dataclass(frozen=True)
class Selected:
    """The runs of a board's rows, and the runs that validation did not choose.

    other_rates: how many configurations were not chosen.
    """

    rows: tuple[Chosen, ...]
    left_out: tuple[LeftOut, ...]
    other_rates: int


def has_figures(made: Record) -> bool:
    """Whether a run counts in a row.

    Args:
        made: any record.

    Returns:
        True where it finished, or diverged and holds the untrained model's figures.
    """
    name = made.primary_metric
    return made.status in ("finished", "diverged") and all(
        name in made.metrics.get(split, {}) for split in ("valid", "test")
    )


def select(records: Iterable[Record], metric: Metric) -> Selected:
    """The runs of each row: those of one configuration, of a repeated seed the newest. Of configurations that differ in
    tuned options only, the one that won the race; without a complete race, the best mean on validation. Runs with
    calibration seeds are in no row. Nothing here reads a test figure.

    Args:
        records: the records of one group, the oldest first.
        metric: the primary metric.

    Returns:
        The rows' runs.
    """
    entries: dict[str, dict[str, dict[int, Record]]] = defaultdict(lambda: defaultdict(dict))
    rows, left_out, others = list[Chosen](), list[LeftOut](), 0
    for made in filter(has_figures, records):
        if made.seed >= FIRST_CALIBRATION_SEED:
            left_out.append(LeftOut(made.id, "a calibration seed: it chooses the board's test and belongs to no row"))
        else:
            entries[untuned_configuration(made)][configuration(made)][made.seed] = made
    for configurations in entries.values():
        every = [tuple(seeds[seed] for seed in sorted(seeds)) for seeds in configurations.values()]
        chosen = _chosen(every, metric)
        rows.append(chosen)
        won = configuration(chosen.runs[0])
        for runs in every:
            if configuration(runs[0]) != won:
                reason, others = _reason(runs, chosen, metric), others + 1
                left_out += [LeftOut(made.id, reason) for made in runs]
    return Selected(tuple(rows), tuple(left_out), others)


def _chosen(every: Sequence[Runs], metric: Metric) -> Chosen:
    race = raced(every, metric)
    if race is not None and race.chosen is not None:
        return Chosen(race.finals[race.chosen], race)
    sign = 1.0 if metric.higher_is_better else -1.0
    return Chosen(max(every, key=lambda runs: sign * _mean(runs, metric)), race)


def _reason(runs: Runs, chosen: Chosen, metric: Metric) -> str:
    """`lr=0.001 lost on validation to lr=0.003: 1.52 against 1.48 over 4 equal seed(s)`"""
    seeds = {made.seed for made in runs} & {made.seed for made in chosen.runs}
    if not seeds:
        return f"{_options(runs[0], chosen.runs[0])} lost on validation to {_options(chosen.runs[0], runs[0])}"
    own, best = ([made for made in each if made.seed in seeds] for each in (runs, chosen.runs))
    figures = [f"{_mean(each, metric):.{metric.digits + 1}f}" for each in (own, best)]
    return (
        f"{_options(runs[0], chosen.runs[0])} lost on validation to {_options(chosen.runs[0], runs[0])}: "
        f"{figures[0]} against {figures[1]} over {len(seeds)} equal seed(s)"
    )


def _options(made: Record, other: Record) -> str:
    """The tuned options in which a run differs from another."""
    own, theirs = made.config.portable(), other.config.portable()
    parts = [name.split(".") for name in made.config.tuned]
    return ", ".join(f"{name}={shown(own[s][name])}" for s, name in parts if own[s][name] != theirs[s].get(name))


def rows_of(chosen: Iterable[Chosen], common: Usual, metric: Metric) -> list[Row]:
    """The rows with their means, in order: those with a rank first.

    Args:
        chosen: the runs of each row, from `select`.
        common: the usual options, which the names of rows leave out.
        metric: the primary metric.

    Returns:
        Rows with places, without comparisons.
    """
    chosen = list(chosen)
    any_race = any(each.race and each.race.ended for each in chosen)
    made = []
    for each in chosen:
        first, won = each.runs[0], each.race is not None and each.race.ended
        name, scored = name_of(first, common, raced=won), scores_of(each.runs, metric)
        spread = math.sqrt(scored.variance) if len(each.runs) > 1 else None
        row = Row(name, entry_of(first, common), each.runs, scored.mean, spread, each.race)
        made.append(replace(row, unranked=_unranked(row, needs_race=any_race)))
    made.sort(key=lambda row: (bool(row.unranked), -row.mean if metric.higher_is_better else row.mean))
    return [replace(row, place=None if row.unranked else place) for place, row in enumerate(made, 1)]


def _unranked(row: Row, *, needs_race: bool) -> str:
    """Why a row has no rank. Where any row of a board had the full race, every ranked row must have had it."""
    first = row.first
    if first.config.mixer_origin == BASELINE:
        return "baseline"
    if is_retired(first):
        return "earlier version"
    if first.config.model.width_factor != 1:
        return "other size"
    if not first.certificate.matched or first.config.unmatched:
        return "unmatched"
    if needs_race and (row.race is None or not row.race.ended):
        return "no full race"
    if needs_race and any(made.code.git_dirty for made in row.records):
        return "changed code"
    return ""


def is_reference(row: Row) -> bool:
    """Whether a row is softmax as the recipe has it, to which all others are compared.

    Args:
        row: any row.

    Returns:
        True for softmax without options of its own.
    """
    return row.entry == "softmax" and row.first.config.mixer_origin in OWN_ORIGINS


def curve_factor(row: Row) -> float | None:
    """The size at which a row belongs to the softmax parameter curve.

    Args:
        row: any row.

    Returns:
        The factor of the reference's parameters, 1 for the reference itself; None where it is no part of the curve.
    """
    factor = row.first.config.model.width_factor
    if is_reference(row):
        return 1.0
    return factor if row.entry == f"softmax (width_factor={shown(factor)})" else None


def scores_of(runs: Iterable[Record], metric: Metric, split: Literal["valid", "test"] = "test") -> Scores:
    """The primary metric of runs with different seeds.

    Args:
        runs: at least one, all with figures.
        metric: the primary metric.
        split: of which the figures are.

    Returns:
        The scores, without a name.
    """
    by_seed = {made.seed: made.metrics[split][made.primary_metric] for made in runs}
    return Scores("", by_seed, metric.higher_is_better)


def _mean(runs: Iterable[Record], metric: Metric) -> float:
    """Of validation."""
    return scores_of(runs, metric, "valid").mean

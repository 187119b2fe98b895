"""Boards: comparable records grouped, the runs of each row selected, rows compared, and ranked by the primary metric.

`group`, `select`, `compare` and `rank` are pure functions of records and rows; `boards` applies them in this order.
"""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import tasks
from suite.boards.naming import Usual, configuration, deviations, is_retired, name_of, untuned_configuration, usual
from suite.config.run_config import without_folder
from suite.records.collection import Refused
from suite.records.schema import Record
from tasks.base import Metric


@dataclass(frozen=True)
class Row:
    """The runs of one configuration, one per seed.

    mixer: what the row is called.
    mean: of the primary metric on test, over seeds.
    spread: its sample standard deviation; None for one seed.
    place: from 1; None for a row that never ranks.
    """

    mixer: str
    records: tuple[Record, ...]
    mean: float
    spread: float | None = None
    place: int | None = None

    @property
    def first(self) -> Record:
        return self.records[0]


@dataclass(frozen=True)
class Board:
    """Rows that may be compared: equal task, scale, data, shape and training, so that only the mixer and the options
    that validation chose for it differ.

    deviations: what differs from the shipped recipe.
    unfinished: runs without a result.
    other_rates: rows of tuned options that validation did not choose.
    refused: record files that cannot be relied on.
    """

    task: str
    domain: str
    scale: str
    deviations: tuple[str, ...]
    metric: Metric
    rows: tuple[Row, ...]
    unfinished: int = 0
    other_rates: int = 0
    refused: int = 0

    @property
    def title(self) -> str:
        return " · ".join([self.task, self.scale, *([", ".join(self.deviations)] if self.deviations else [])])


@dataclass(frozen=True)
class Selected:
    """The runs of a board's rows, and how many rows were left out because validation chose other options."""

    rows: tuple[tuple[Record, ...], ...]
    other_rates: int


def boards(
    records: Iterable[Record],
    refused: Sequence[Refused] = (),
    *,
    task: str | None = None,
    domain: str | None = None,
    scale: str | None = None,
) -> list[Board]:
    """One board for each group of comparable records, shipped recipes first.

    Args:
        records: records that were read, the oldest first.
        refused: record files that were not; a board counts those that claim its task or none.
        task: only boards of this task; of `path/file.py:Class`, the folder does not count.
        domain: only boards of this domain.
        scale: only boards of this scale.

    Returns:
        The boards, by domain and task.
    """
    name = without_folder(task) if task else None
    chosen = [
        made
        for made in records
        if name in (None, made.task) and domain in (None, made.domain) and scale in (None, made.scale)
    ]
    found = [(made[-1], _board(made, refused)) for made in group(chosen)]
    named = [replace(board, deviations=(*board.deviations, *_apart(newest, board, found))) for newest, board in found]
    return sorted(named, key=lambda b: (b.domain, b.task, bool(b.deviations), b.scale, b.title))


def _apart(newest: Record, board: Board, found: Sequence[tuple[Record, Board]]) -> list[str]:
    """What distinguishes a board from others with its title: of a third party's task no recipe is known, and precision
    and data are in no title.
    """
    others = [made for made, other in found if other.title == board.title and made is not newest]
    parts: dict[str, Callable[[Record], str]] = {
        "group {}": lambda made: made.group[:8],
        "precision={}": lambda made: made.precision,
        "data {}": lambda made: made.data.fingerprint[:8],
    }
    return [
        words.format(part(newest)) for words, part in parts.items() if {part(made) for made in others} - {part(newest)}
    ]


def group(records: Iterable[Record]) -> list[list[Record]]:
    """Records by what must be equal on a board: task, scale, group, precision, versions of task and training, and data.

    Args:
        records: any records.

    Returns:
        The groups, each in the order of the records.
    """
    groups: dict[tuple[object, ...], list[Record]] = defaultdict(list)
    for made in records:
        versions = made.versions.task, made.versions.training
        key = (made.task, made.scale, made.group, made.precision, *versions, made.data.fingerprint)
        groups[key].append(made)
    return list(groups.values())


def select(records: Iterable[Record], metric: Metric) -> Selected:
    """The runs of each row: the finished ones of one configuration, of a repeated seed the newest. Of configurations
    that differ in tuned options only, the best one on validation: choosing by the test metric would be peeking.

    Args:
        records: the records of one group, the oldest first.
        metric: the primary metric.

    Returns:
        The rows' runs.
    """
    by_configuration: dict[str, dict[int, Record]] = defaultdict(dict)
    for made in records:
        if made.status == "finished":
            by_configuration[configuration(made)][made.seed] = made
    every = [tuple(seeds.values()) for seeds in by_configuration.values()]
    chosen: dict[str, tuple[Record, ...]] = {}
    for runs in every:
        key = untuned_configuration(runs[0])
        if key not in chosen or _better(_mean(runs, "valid"), _mean(chosen[key], "valid"), metric):
            chosen[key] = runs
    return Selected(tuple(chosen.values()), len(every) - len(chosen))


def compare(rows: Iterable[tuple[Record, ...]], common: Usual) -> list[Row]:
    """The figures of each row.

    Args:
        rows: the runs of each row, from `select`.
        common: the usual options, which the names of rows leave out.

    Returns:
        Rows with the mean of the test metric and its sample standard deviation over seeds, unranked.
    """
    made = []
    for runs in rows:
        values = [run.metrics["test"][run.primary_metric] for run in runs]
        spread = statistics.stdev(values) if len(values) > 1 else None
        made.append(Row(name_of(runs[0], common), runs, statistics.fmean(values), spread))
    return made


def rank(rows: Iterable[Row], metric: Metric) -> list[Row]:
    """Rows in the order of their means. Those that are not matched, of an earlier version of their mixer, or a baseline
    follow without a place.

    Args:
        rows: rows from `compare`.
        metric: the primary metric.

    Returns:
        The rows with their places, from 1.
    """
    ordered = sorted(rows, key=lambda row: (not ranks(row), -row.mean if metric.higher_is_better else row.mean))
    return [replace(row, place=place if ranks(row) else None) for place, row in enumerate(ordered, 1)]


def ranks(row: Row) -> bool:
    """Whether a row can have a place.

    Args:
        row: any row.

    Returns:
        True where its runs are matched at the reference's size, not declared unmatched, and of the current version of
        their mixer.
    """
    first = row.first
    fits = first.certificate.matched and not first.config.unmatched and first.config.model.width_factor == 1
    return fits and not is_retired(first)


def primary_metric(made: Record) -> Metric:
    """The metric that a record's task, with the record's options, puts first.

    Args:
        made: a record that was read.

    Returns:
        The metric with its direction, unit and digits; of a third party's task, whose code is not imported, only what
        the record holds.
    """
    task = tasks.built_in(made.task)
    if task is None:
        return Metric(made.primary_metric, made.higher_is_better)
    return task(made.config.data).primary


def _board(records: Sequence[Record], refused: Sequence[Refused]) -> Board:
    newest = records[-1]
    metric = primary_metric(newest)
    selected = select(records, metric)
    return Board(
        task=newest.task,
        domain=newest.domain,
        scale=newest.scale,
        deviations=deviations(newest),
        metric=metric,
        rows=tuple(rank(compare(selected.rows, usual(records)), metric)),
        unfinished=sum(made.status != "finished" for made in records),
        other_rates=selected.other_rates,
        refused=sum(each.task in (None, newest.task) for each in refused),
    )


def _mean(runs: Iterable[Record], split: Literal["valid", "test"]) -> float:
    return statistics.fmean(made.metrics[split][made.primary_metric] for made in runs)


def _better(one: float, other: float, metric: Metric) -> bool:
    return one > other if metric.higher_is_better else one < other

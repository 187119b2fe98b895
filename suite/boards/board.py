"""Boards: the records of one task, scale and protocol, a row a mixer, ordered by the primary metric on test."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import tasks
from suite.boards.rows import configuration, deviations, is_retired, name_of, untuned_configuration
from suite.config.run_config import without_folder
from suite.records.collection import Refused
from suite.records.schema import Record
from tasks.base import Metric


@dataclass(frozen=True)
class Row:
    """The runs of one configuration, all seeds."""

    mixer: str
    records: tuple[Record, ...]
    mean: float
    spread: float | None  # sample standard deviation over seeds
    place: int | None  # None where the run is not matched: it never ranks

    @property
    def first(self) -> Record:
        return self.records[0]


@dataclass(frozen=True)
class Board:
    """Rows that may be compared: equal task, scale, data options, shape and training, so only the mixer and its tuned
    rates differ.
    """

    task: str
    domain: str
    scale: str
    deviations: tuple[str, ...]  # what differs from the shipped recipe
    metric: Metric
    rows: tuple[Row, ...]
    unfinished: int
    other_rates: int  # rows of tuned rates that validation did not choose
    refused: int = 0  # record files that cannot be relied on

    @property
    def title(self) -> str:
        changed = f" · {', '.join(self.deviations)}" if self.deviations else ""
        return f"{self.task} · {self.scale}{changed}"


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
    groups: dict[tuple[object, ...], list[Record]] = defaultdict(list)
    task = without_folder(task) if task else None
    for made in records:
        if task in (None, made.task) and domain in (None, made.domain) and scale in (None, made.scale):
            groups[_group(made)].append(made)
    made_boards = [_board(group, refused) for group in groups.values()]
    return sorted(made_boards, key=lambda b: (b.domain, b.task, bool(b.deviations), b.scale, b.title))


def _group(made: Record) -> tuple[object, ...]:
    """Equal for records of one board."""
    versions = made.versions.task, made.versions.training
    return (made.task, made.scale, made.group, made.precision, *versions, made.data.fingerprint)


def _board(records: Sequence[Record], refused: Sequence[Refused]) -> Board:
    one = records[-1]
    metric = primary_metric(one)
    finished = [made for made in records if made.status == "finished"]
    by_configuration: dict[str, dict[int, Record]] = defaultdict(dict)
    for made in finished:
        by_configuration[configuration(made)][made.seed] = made  # the newest of a repeated seed
    every = [_row(list(seeds.values())) for seeds in by_configuration.values()]
    rows = _best_rates(every, metric)
    rows.sort(key=lambda row: (not _ranks(row), -row.mean if metric.higher_is_better else row.mean))
    placed = tuple(
        Row(row.mixer, row.records, row.mean, row.spread, i if _ranks(row) else None) for i, row in enumerate(rows, 1)
    )
    return Board(
        one.task,
        one.domain,
        one.scale,
        deviations(one),
        metric,
        placed,
        len(records) - len(finished),
        len(every) - len(rows),
        sum(each.task in (None, one.task) for each in refused),
    )


def _ranks(row: Row) -> bool:
    first = row.first
    return first.certificate.matched and not first.config.unmatched and not is_retired(first)


def _best_rates(rows: Sequence[Row], metric: Metric) -> list[Row]:
    """Of each mixer's tuned rates, the one that is best on validation: choosing among them by the test metric would be
    peeking.
    """
    chosen: dict[str, Row] = {}
    sign = 1.0 if metric.higher_is_better else -1.0
    for row in rows:
        key = untuned_configuration(row.first)
        rival = chosen.get(key)
        if rival is None or sign * _valid(row) > sign * _valid(rival):
            chosen[key] = row
    return list(chosen.values())


def _valid(row: Row) -> float:
    return statistics.fmean(made.metrics["valid"][made.primary_metric] for made in row.records)


def _row(records: list[Record]) -> Row:
    values = [made.metrics["test"][made.primary_metric] for made in records]
    spread = statistics.stdev(values) if len(values) > 1 else None
    return Row(name_of(records[0]), tuple(records), statistics.fmean(values), spread, None)

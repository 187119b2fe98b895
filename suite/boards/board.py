"""Boards: the records of one task, scale and protocol, a row a mixer, ordered by the primary metric on test."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from pydantic import ValidationError

import tasks
from suite.boards.rows import configuration, deviations, name_of, task_options, untuned_configuration
from suite.config.recipe import SCALES
from suite.records import record, runs_folder
from suite.records.record import Record
from tasks.base import DataError, Metric


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

    @property
    def title(self) -> str:
        changed = f" · {', '.join(self.deviations)}" if self.deviations else ""
        return f"{self.task} · {self.scale}{changed}"


def local_records() -> list[Record]:
    """Every readable record under the runs folder, the oldest first; an unreadable one is left to `suite doctor`."""
    found = []
    for path in sorted(runs_folder.home().glob(f"*/{record.NAME}")):
        try:
            found.append(record.read(path))
        except record.RecordError:
            continue
    return found


def count_records() -> int:
    """How many record files stand under the runs folder, readable or not."""
    return sum(1 for _ in runs_folder.home().glob(f"*/{record.NAME}"))


def is_known(made: Record) -> bool:
    """Whether this version knows the record's task, its options, its metric and its scale, and so can place it on a
    board.
    """
    if not {"data", "model", "mixer_options", "hybrid", "train"} <= made.config.keys():
        return False
    try:
        metrics = tasks.get(made.task)(task_options(made)).metrics
    except (DataError, ValidationError):
        return False
    return made.scale in SCALES and made.primary_metric in {m.name for m in metrics}


def primary_metric(made: Record) -> Metric:
    """The metric that a known record's task, with the record's options, puts first."""
    return next(m for m in tasks.get(made.task)(task_options(made)).metrics if m.name == made.primary_metric)


def boards(
    records: Iterable[Record], *, task: str | None = None, domain: str | None = None, scale: str | None = None
) -> list[Board]:
    """One board for each group of comparable records, shipped recipes first."""
    groups: dict[tuple[str, ...], list[Record]] = defaultdict(list)
    for made in records:
        if (
            task in (None, made.task)
            and domain in (None, made.domain)
            and scale in (None, made.scale)
            and is_known(made)
        ):
            content = (made.data.protocol, made.data.fingerprint) if made.data else ()
            groups[made.task, made.scale, made.group, made.precision, *content].append(made)
    made_boards = [_board(group) for group in groups.values()]
    return sorted(made_boards, key=lambda b: (b.domain, b.task, bool(b.deviations), b.scale, b.title))


def _board(records: Sequence[Record]) -> Board:
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
    )


def _ranks(row: Row) -> bool:
    return bool(row.first.certificate["matched"]) and not row.first.config["unmatched"]


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

"""Boards: comparable records grouped, the runs of each row selected, rows compared, and ranked by the primary metric.

`group`, `select`, `rows_of` and `compared` are pure functions of records and rows; `boards` applies them in this order.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import tasks
from suite.boards.compare import compared
from suite.boards.figures import Noise
from suite.boards.naming import deviations, usual
from suite.boards.order import Order, order
from suite.boards.pareto import with_fronts
from suite.boards.rows import LeftOut, Row, has_figures, rows_of, select
from suite.config.run_config import without_folder
from suite.records.badges import Badge, of_row
from suite.records.collection import Refused
from suite.records.schema import Record
from tasks.base import Metric


@dataclass(frozen=True)
class Board:
    """Rows that may be compared: equal task, scale, data, shape and training, so that only the mixer and the options
    that validation chose for it differ.

    deviations: what differs from the shipped recipe.
    noise: how noisy its runs are; None where no ranked row has two seeds.
    unfinished: runs without a result.
    left_out: runs of tuned options that validation did not choose, with the reason.
    other_rates: how many configurations these are.
    refused: record files that cannot be relied on.
    orders: its order against the other scales of its task.
    """

    task: str
    domain: str
    scale: str
    deviations: tuple[str, ...]
    metric: Metric
    rows: tuple[Row, ...]
    noise: Noise | None = None
    unfinished: int = 0
    left_out: tuple[LeftOut, ...] = ()
    other_rates: int = 0
    refused: int = 0
    orders: tuple[Order, ...] = ()

    @property
    def title(self) -> str:
        return " · ".join([self.task, self.scale, *([", ".join(self.deviations)] if self.deviations else [])])


def boards(
    records: Iterable[Record],
    refused: Sequence[Refused] = (),
    *,
    task: str | None = None,
    domain: str | None = None,
    scale: str | None = None,
    badges: Mapping[str, Badge] | None = None,
) -> list[Board]:
    """One board for each group of comparable records, shipped recipes first.

    Args:
        records: records that were read, the oldest first.
        refused: record files that were not; a board counts those that claim its task or none.
        task: only boards of this task; of `path/file.py:Class`, the folder does not count.
        domain: only boards of this domain.
        scale: only boards of this scale.
        badges: hash of a record → its badge.

    Returns:
        The boards, by domain and task.
    """
    name = without_folder(task) if task else None
    chosen = [made for made in records if name in (None, made.task) and domain in (None, made.domain)]
    found = [(made[-1], _board(made, refused, badges or {})) for made in group(chosen)]
    named = [replace(board, deviations=(*board.deviations, *_apart(newest, board, found))) for newest, board in found]
    shown = [board for board in _with_orders(named) if scale in (None, board.scale)]
    return sorted(shown, key=lambda b: (b.domain, b.task, bool(b.deviations), b.scale, b.title))


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


def _with_orders(boards: Sequence[Board]) -> list[Board]:
    """The boards of shipped recipes with their order against the other scales of their tasks."""
    made = []
    for board in boards:
        others = [b for b in boards if b is not board and b.task == board.task and not b.deviations + board.deviations]
        orders = [order(board.rows, other.rows, other.scale) for other in others]
        made.append(replace(board, orders=tuple(each for each in orders if each)))
    return made


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


def _board(records: Sequence[Record], refused: Sequence[Refused], badges: Mapping[str, Badge]) -> Board:
    newest = records[-1]
    metric = primary_metric(newest)
    selected = select(records, metric)
    rows, noise = compared(rows_of(selected.rows, usual(records), metric), records, metric)
    rows = with_fronts(rows, metric)
    return Board(
        task=newest.task,
        domain=newest.domain,
        scale=newest.scale,
        deviations=deviations(newest),
        metric=metric,
        rows=tuple(replace(row, badge=of_row(badges, (made.hash for made in row.records))) for row in rows),
        noise=noise,
        unfinished=sum(not has_figures(made) for made in records),
        left_out=selected.left_out,
        other_rates=selected.other_rates,
        refused=sum(each.task in (None, newest.task) for each in refused),
    )

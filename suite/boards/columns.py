"""The one table of board columns: what the terminal, Markdown, JSON and the tracking store show of a row."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from suite.boards.board import Board, Row
from suite.boards.naming import is_retired
from suite.console import format_metric
from suite.models.baseline_candidate import ORIGIN as BASELINE
from tasks.base import Metric

NOTHING = "–"


@dataclass(frozen=True)
class Column:
    """A column of every board. A new one is one entry of `COLUMNS`.

    name: unique; the key in JSON.
    value: of a row, as a plain JSON value; None where it is unknown.
    header: of tables; empty: no column of tables. `{metric}` stands for the primary metric with unit and direction.
    text: of a table's cell; None: the value itself.
    align: of a table's cells.
    wraps: whether its cells and header may take several lines on a narrow terminal.
    priority: the order in which columns are left out of a narrow terminal, the highest first; 0: never left out.
    json: whether JSON has it.
    mlflow: the column of the tracking store's table of runs; empty: none. `{metric}` stands for the metric's name.
    """

    name: str
    value: Callable[[Row], Any]
    header: str = ""
    text: Callable[[Row, Board], str] | None = None
    align: Literal["left", "right"] = "right"
    wraps: bool = False
    priority: int = 0
    json: bool = True
    mlflow: str = ""

    def title(self, board: Board) -> str:
        """The header of the column on a board.

        Args:
            board: the board.

        Returns:
            The header, with the board's metric filled in.
        """
        metric = board.metric
        unit = f", {metric.unit}" if metric.unit not in ("", "%") else ""
        return self.header.replace("{metric}", f"{metric.name}{unit} {'↑' if metric.higher_is_better else '↓'}")

    def cell(self, row: Row, board: Board) -> str:
        """The text of the column in a row.

        Args:
            row: one row of the board.
            board: the board.

        Returns:
            The text; a dash where the value is unknown.
        """
        value = self.value(row)
        if value is None and self.text is None:
            return NOTHING
        return self.text(row, board) if self.text else str(value)

    def key(self, metric: Metric) -> str:
        """The column of the tracking store.

        Args:
            metric: the primary metric.

        Returns:
            `metrics.NAME`, `tags.NAME`, or an empty string where the store has none.
        """
        return self.mlflow.replace("{metric}", metric.name)


def table_columns() -> tuple[Column, ...]:
    """The columns of tables.

    Returns:
        Those with a header, in their order.
    """
    return tuple(column for column in COLUMNS if column.header)


def _place(row: Row, board: Board) -> str:
    if row.place is not None:
        return str(row.place)
    if row.first.config.mixer_origin == BASELINE:
        return "baseline"
    return "earlier version" if is_retired(row.first) else "unmatched"


def _result(row: Row, board: Board) -> str:
    spread = "" if row.spread is None else f" ± {format_metric(board.metric, row.spread)}"
    return format_metric(board.metric, row.mean) + spread


def _parameters(row: Row, board: Board) -> str:
    return f"{row.first.certificate.parameters:,} ({row.first.certificate.ratio:.3f}×)"


def _flops(row: Row, board: Board) -> str:
    return f"{row.first.certificate.flops / row.first.certificate.reference_flops:.2f}×"


def _examples_per_s(row: Row) -> float | None:
    return row.first.timing.examples_per_s if row.first.timing else None


def _speed(row: Row, board: Board) -> str:
    speed = _examples_per_s(row)
    return NOTHING if speed is None else f"{speed:,.0f}"


def _of_split(split: Literal["valid", "test"]) -> Callable[[Row], list[float]]:
    return lambda row: [made.metrics[split][made.primary_metric] for made in row.records if split in made.metrics]


def _valid(row: Row) -> float | None:
    values = _of_split("valid")(row)
    return sum(values) / len(values) if values else None


COLUMNS: tuple[Column, ...] = (
    Column("place", lambda row: row.place, "#", _place),
    Column("mixer", lambda row: row.mixer, "mixer", align="left", mlflow="tags.mixer"),
    Column("scale", lambda row: row.first.scale, json=False, mlflow="tags.scale"),
    Column("seed", lambda row: row.first.seed, json=False, mlflow="tags.seed"),
    Column("matched", lambda row: row.first.certificate.matched, mlflow="tags.matched"),
    Column("mean", lambda row: row.mean, "test {metric}", _result, mlflow="metrics.test/{metric}"),
    Column("sd", lambda row: row.spread),
    Column("valid", _valid, json=False, mlflow="metrics.valid/{metric}"),
    Column("seeds", lambda row: [made.seed for made in row.records], "seeds", lambda row, _: str(len(row.records))),
    Column("runs", lambda row: [made.id for made in row.records]),
    Column("mixer_options", lambda row: row.first.certificate.mixer_options.model_dump(mode="json")),
    Column("values", _of_split("test")),
    Column(
        "parameters",
        lambda row: row.first.certificate.parameters,
        "parameters (of softmax's)",
        _parameters,
        wraps=True,
        mlflow="metrics.budget/parameters",
    ),
    Column("ratio", lambda row: row.first.certificate.ratio),
    Column(
        "flops", lambda row: row.first.certificate.flops, "FLOPs", _flops, priority=1, mlflow="metrics.budget/flops"
    ),
    Column("reference_flops", lambda row: row.first.certificate.reference_flops),
    Column("state_bytes", lambda row: row.first.certificate.state_bytes),
    Column("examples_per_s", _examples_per_s, "examples/s", _speed, priority=2, mlflow="metrics.time/examples_per_s"),
    Column(
        "peak_memory_bytes",
        lambda row: row.first.peak_memory_bytes,
        "peak MB",
        lambda row, _: f"{row.first.peak_memory_bytes / 2**20:,.0f}",
        priority=3,
    ),
    Column("status", lambda row: row.first.status, json=False, mlflow="tags.result"),
)

"""What a column of a board is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from suite.boards.board import Board
from suite.boards.rows import Row
from suite.boards.words import NOTHING
from tasks.base import Metric


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
    optional: whether tables leave it out where no row has a value.
    muted: whether it is grey on pages: its values are no comparison.
    json: whether JSON has it.
    mlflow: the column of the tracking store's table of runs; empty: none. `{metric}` stands for the metric's name.
    ranked: the metric that the tracking store has of a row; empty: none.
    """

    name: str
    value: Callable[[Row], Any]
    header: str = ""
    text: Callable[[Row, Board], str] | None = None
    align: Literal["left", "right"] = "right"
    wraps: bool = False
    priority: int = 0
    optional: bool = False
    muted: bool = False
    json: bool = True
    mlflow: str = ""
    ranked: str = ""

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

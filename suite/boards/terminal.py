"""A board as a table for a terminal of any width."""

from __future__ import annotations

from rich.table import Table

from suite.boards.board import Board
from suite.boards.columns.column import Column
from suite.boards.columns.table import table_columns
from suite.boards.notes import notes

NAMES = ("rank", "mixer")
BORDER, PADDING = 1, 3  # characters: at the left of the table, and per column with its border


def table(board: Board, width: int = 0) -> Table:
    """The board as a table.

    Args:
        board: the board.
        width: characters of the terminal; columns that do not fit are left out by their priority. 0: any width.

    Returns:
        The table; its caption names the columns that were left out.
    """
    columns, left_out = _fitting(board, width)
    missing = (
        f"; left out for lack of width: {', '.join(column.title(board) for column in left_out)}" if left_out else ""
    )
    made = Table(title=board.title, caption=notes(board) + missing, title_justify="left", caption_justify="left")
    narrow = bool(width) and _width(columns, board) > width  # names go over several lines, at spaces; figures do not
    for column in columns:
        cells = [column.cell(row, board) for row in board.rows]
        parts = [part for cell in cells for part in (cell.split() if column.name in NAMES else [cell])]
        made.add_column(
            column.title(board),
            justify=column.align,
            no_wrap=not (column.wraps or narrow),
            overflow="fold",
            min_width=max(map(len, parts), default=0) if narrow else None,
        )
    for row in board.rows:
        made.add_row(*(column.cell(row, board) for column in columns))
    return made


def _fitting(board: Board, width: int) -> tuple[list[Column], list[Column]]:
    """The columns that fit into a width, and those left out. Where even the others do not fit, cells are wrapped."""
    columns, left_out = list(table_columns(board)), list[Column]()
    while width and _width(columns, board) > width and any(column.priority for column in columns):
        last = max(columns, key=lambda column: column.priority)
        columns.remove(last)
        left_out.append(last)
    return columns, left_out


def _width(columns: list[Column], board: Board) -> int:
    texts = [[column.title(board), *(column.cell(row, board) for row in board.rows)] for column in columns]
    return BORDER + sum(PADDING + max(map(len, cells)) for cells in texts)

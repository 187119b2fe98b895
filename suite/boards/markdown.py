"""A board as Markdown."""

from __future__ import annotations

from suite.boards.board import Board
from suite.boards.columns.table import table_columns
from suite.boards.notes import headline, notes
from suite.safe_text import markdown_text


def markdown(board: Board) -> str:
    """The board as a section: its result, its rows, its notes."""
    columns, head = table_columns(board), f"**{markdown_text(board.title)}**: {markdown_text(headline(board))}"
    if not board.rows:
        return "\n".join([head, "", *([f"*{noted}*", ""] if (noted := notes(board)) else [])])
    lines = [
        head,
        "",
        _line([column.title(board) for column in columns]),
        "|" + " --- |" * len(columns),
        *(_line([column.cell(row, board) for column in columns]) for row in board.rows),
    ]
    return "\n".join([*lines, "", f"*{notes(board)}*", ""])


def _line(cells: list[str]) -> str:
    return "| " + " | ".join(markdown_text(cell) for cell in cells) + " |"

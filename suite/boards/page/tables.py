"""Boards as CSV and as LaTeX, for spreadsheets and papers."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

from suite.boards.board import Board
from suite.boards.columns.column import Column
from suite.boards.columns.table import COLUMNS, table_columns
from suite.boards.notes import notes

#: What has a meaning in LaTeX, and how it is printed there.
LATEX = {
    "\\": r"\textbackslash{}",
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "–": "--",
    "±": r"$\pm$",
    "×": r"$\times$",
    "↑": r"$\uparrow$",
    "↓": r"$\downarrow$",
    "<": r"$<$",
    ">": r"$>$",
    "²": r"\textsuperscript{2}",
}
#: Columns of a paper's table.
PRINTED = ("place", "mixer", "mean", "difference", "p", "exchange", "parameters", "flops")


def comma_separated(boards: Sequence[Board]) -> str:
    """All boards as one CSV table: a line per row, plain numbers.

    Args:
        boards: any number.

    Returns:
        CSV with a header; nested values as `name.part`.
    """
    lines = [
        {"board": board.title, "metric": board.metric.name, **_flat(row)} for board in boards for row in board.rows
    ]
    names = list(dict.fromkeys(name for line in lines for name in line))
    stream = io.StringIO()
    writer = csv.DictWriter(stream, names, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return stream.getvalue()


def _flat(row: object) -> dict[str, object]:
    values: dict[str, object] = {}
    for column in COLUMNS:
        value = column.value(row) if column.json else None  # type: ignore[arg-type]
        if isinstance(value, dict):
            values |= {f"{column.name}.{part}": _cell(inner) for part, inner in value.items()}
        elif column.json:
            values[column.name] = _cell(value)
    return values


def _cell(value: object) -> object:
    """Text that a spreadsheet takes for a formula gets an apostrophe, lists are separated by spaces."""
    if isinstance(value, (list, tuple)):
        return " ".join(map(str, value))
    if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r")):
        return f"'{value}"
    return "" if value is None else value


def latex(board: Board) -> str:
    """A board as a LaTeX table; needs the packages booktabs and textcomp.

    Args:
        board: the board.

    Returns:
        A `table` environment with a caption and a label.
    """
    columns = [column for column in table_columns(board) if column.name in PRINTED]
    ranked = [row for row in board.rows if not row.unranked]
    others = [row for row in board.rows if row.unranked]
    lines = [[column.cell(row, board) for column in columns] for row in ranked]
    rest = [[column.cell(row, board) for column in columns] for row in others]
    body = [*map(_line, lines), *([r"\midrule"] if lines and rest else []), *map(_line, rest)]
    label = "".join(character if character.isalnum() else "-" for character in board.title)
    return "\n".join(
        [
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{escaped(board.title)}. {escaped(notes(board))}.}}",
            rf"\label{{tab:{label}}}",
            rf"\begin{{tabular}}{{{''.join(map(_alignment, columns))}}}",
            r"\toprule",
            _line([column.title(board) for column in columns]),
            r"\midrule",
            *body,
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table}",
            "",
        ]
    )


def escaped(text: str) -> str:
    """Text for LaTeX.

    Args:
        text: any text.

    Returns:
        The text, in which no character has a meaning for LaTeX.
    """
    return "".join(LATEX.get(character, character) for character in text)


def _line(cells: Sequence[str]) -> str:
    return " & ".join(map(escaped, cells)) + r" \\"


def _alignment(column: Column) -> str:
    return "l" if column.align == "left" else "r"

"""Converts the cells of a CSV file to numbers; where some are none, names their columns, how many they are, where they
are, and what to do.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from tasks.base import DataError
from tasks.series.tables.format import SIGNS, CsvFormat

if TYPE_CHECKING:
    import pandas as pd

MISSING = frozenset({"", "nan", "na", "n/a", "#n/a", "null", "none", "nat", "?", "-"})  # in lower case
WITH_COMMAS = re.compile(r"[+-]?\d+(,\d+)+(\.\d+)?")
WITH_PERCENT = re.compile(r"[+-]?[\d.,]+\s*%")
LISTED, NAMED_COLUMNS, LONGEST = 3, 8, 80


def numbers(
    path: Path,
    table: pd.DataFrame,
    form: CsvFormat,
    *,
    lines: NDArray[np.int64] | None = None,
    advise: bool = True,
) -> NDArray[np.float64]:
    """values `[N, C]` of cells that are texts or floats. Raises DataError if one is not a finite number.

    lines: the line of each row, counted from 2 by default; advise: whether the file is the user's, who can edit it or
    leave columns out.
    """
    values = np.column_stack([_parsed(table.iloc[:, place], form) for place in range(table.shape[1])])
    bad = ~np.isfinite(values)
    if bad.any():
        lines = np.arange(len(table)) + 2 if lines is None else lines
        raise DataError(f"{path}, {_describe(table, bad, form, lines, advise)}")
    return values


def _parsed(cells: pd.Series, form: CsvFormat) -> NDArray[np.float64]:
    import pandas as pd

    if cells.dtype.kind != "f" and not form.is_plain:
        cells = cells.str.strip()
        if form.thousands != "none":
            cells = cells.str.replace(SIGNS[form.thousands], "", regex=False)
        if form.decimal == "comma":
            cells = cells.str.replace(".", "?", regex=False).str.replace(",", ".", regex=False)  # a point is no number
    return pd.to_numeric(cells, errors="coerce").to_numpy(dtype=np.float64)


def _describe(
    table: pd.DataFrame, bad: NDArray[np.bool_], form: CsvFormat, lines: NDArray[np.int64], advise: bool
) -> str:
    """What is wrong in the first affected column and the first affected line of it, and what to do."""
    affected = np.flatnonzero(bad.any(0))
    place = int(affected[0])
    rows = np.flatnonzero(bad[:, place])
    cell = table.iloc[int(rows[0]), place]
    name = table.columns[place]
    cause = _cause(table.iloc[:, place], rows, lines)
    others = f"; more such cells are in {_listed([table.columns[i] for i in affected[1:]])}"
    found = f"line {lines[rows[0]]}, {_column(name)}: {quoted(cell)} is not a finite number; {cause}"
    found += others if len(affected) > 1 else ""
    if not advise:
        return f"{found}; fetch the file again"
    whole = [str(table.columns[i]) for i in range(table.shape[1]) if not bad[:, i].any()]
    is_empty = not any(str(text).strip() for text in table.iloc[:, place])
    return f"{found}; {_way_out(str(cell), whole, form, is_empty=is_empty)}"


def _cause(cells: pd.Series, rows: NDArray[np.int64], lines: NDArray[np.int64]) -> str:
    """How many cells of a column are not numbers, where, and of which kind the first is."""
    texts = [str(cells.iloc[int(row)]).strip() for row in rows]
    kind = _kind(texts[0])
    count = f"{len(rows):,} of {len(cells):,} cells of the column {'is' if len(rows) == 1 else 'are'} {kind}"
    if len(rows) == len(cells):
        if not any(texts):
            return "the column is empty; a comma at the end of the lines makes such a column"
        return f"no cell of the column is a number: all are {kind}"
    where = ", ".join(str(lines[row]) for row in rows[:LISTED]) + (", …" * (len(rows) > LISTED))
    last = len(rows) == 1 and rows[0] == len(cells) - 1
    return f"{count} (line{'s' * (len(rows) > 1)} {where})" + ("; the file may be truncated" if last else "")


def _column(name: object) -> str:
    """A column as errors name it; pandas numbers those without a name from 0."""
    unnamed = re.fullmatch(r"Unnamed: (\d+)", str(name))
    return f"column {int(unnamed[1]) + 1}, which has no name" if unnamed else f"column {name!r}"


def _kind(text: str) -> str:
    if text.lower() in MISSING:
        return "missing"
    if WITH_PERCENT.fullmatch(text):
        return "written with a percent sign"
    if WITH_COMMAS.fullmatch(text):
        return "written with a comma"
    return "text"


def _way_out(cell: str, whole: Sequence[str], form: CsvFormat, *, is_empty: bool) -> str:
    text = cell.strip()
    without = f"--set columns={listed_columns(whole)} reads only the others" if whole else ""
    match _kind(text):
        case "missing" if is_empty:
            fix = "remove the column"
        case "missing":
            fix = "fill them, for example by interpolation, or remove such rows at the beginning or the end"
        case "written with a percent sign":
            fix = "remove the percent signs"
        case "written with a comma" if form.is_plain:
            fix = "--set decimal=comma reads a decimal comma, --set thousands=comma one that separates thousands"
        case _:
            fix = "write numbers such as 1234.5"
    return f"{fix}; {without}" if without else fix


def listed_columns(names: Sequence[str]) -> str:
    """Names as `--set columns=` takes them; only the form of it where they are many.

    Args:
        names: of the columns.

    Returns:
        The text after the equals sign.
    """
    fits = len(names) <= NAMED_COLUMNS and not any("," in name or " " in name for name in names)
    return ",".join(names) if fits else "NAME,NAME,…"


def _listed(names: Sequence[object]) -> str:
    shown = ", ".join(repr(str(name)) for name in names[:LISTED])
    return shown + (f" and {len(names) - LISTED:,} more columns" if len(names) > LISTED else "")


def quoted(content: object) -> str:
    """A cell as errors show it, cut where it is long.

    Args:
        content: of the cell.

    Returns:
        Its text in quotes.
    """
    if not isinstance(content, str) or not content:
        return "an empty cell"
    return repr(content) if len(content) <= LONGEST else f"{content[:LONGEST]!r}…"

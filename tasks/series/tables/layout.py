"""The layouts of CSV files: one column of times or two (date, time of day), or the long format of `unique_id`, `ds` and
`y`, one row per series and time.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from tasks.base import DataError
from tasks.series.tables.cells import numbers
from tasks.series.tables.format import CsvFormat
from tasks.series.timestamps import read_times

if TYPE_CHECKING:
    import pandas as pd

TIME_OF_DAY = re.compile(r"\s*\d{1,2}:\d\d(:\d\d(\.\d+)?)?(\s*[AaPp][Mm])?\s*")
HOUR_NAME, HOUR = re.compile(r"\s*(hours?|hr|hh)\s*", re.IGNORECASE), re.compile(r"\s*\d{1,2}(\.0)?\s*")
FIRST = 3  # rows: of two neighbours at least one pair has the same date, with two or more rows a day
LONG = ("unique_id", "ds", "y")
Layout = Literal["wide", "date and time", "long"]


@dataclass(frozen=True)
class Rows:
    """What a file holds, one row per time step: the times as written `[N]` and as read `[N]`, the line of each `[N]`,
    the values `[N, C]` and the C names.
    """

    cells: pd.Series[str]
    stamps: pd.DatetimeIndex
    lines: NDArray[np.int64]
    values: NDArray[np.float64]
    columns: tuple[str, ...]


def layout_of(names: Sequence[str], first: Sequence[Sequence[str]]) -> Layout:
    """names: of all columns; first: the cells of the first rows, `FIRST` of them as far as they exist.

    A column called hour is one of times where dates repeat; with a row per date it is a series.
    """
    if set(LONG) <= set(names):
        return "long"
    if len(names) < 3 or not first or ":" in first[0][0]:
        return "wide"
    repeated = any(row[0] == after[0] for row, after in pairwise(first))
    hour = repeated and HOUR_NAME.fullmatch(names[1]) and HOUR.fullmatch(first[0][1])
    return "date and time" if hour or TIME_OF_DAY.fullmatch(first[0][1]) else "wide"


def series_names(path: Path, names: Sequence[str], layout: Layout, form: CsvFormat) -> tuple[str, ...]:
    """The columns that hold series, those that were chosen. Raises DataError if one does not exist.

    In the long format, the names are those of the rows, not checked here.
    """
    if layout == "long":
        return form.columns
    held = names[2:] if layout == "date and time" else names[1:]
    return _chosen(path, held, form)


def rows_of(path: Path, table: pd.DataFrame, layout: Layout, form: CsvFormat, *, advise: bool) -> Rows:
    """Reads times and numbers of a table of cells. Raises DataError with the line at fault."""
    if layout == "long":
        return _from_long(path, table, form)
    columns = series_names(path, [str(name) for name in table.columns], layout, form)
    cells = table.iloc[:, 0]
    if layout == "date and time":
        cells = cells.str.strip() + " " + _times_of_day(table.iloc[:, 1])
    stamps = read_times(path, cells, form.dates)
    values = numbers(path, table[list(columns)], form, advise=advise)
    return Rows(cells, stamps, np.arange(len(table)) + 2, values, columns)


def _times_of_day(cells: pd.Series[str]) -> pd.Series[str]:
    """Times of day as written; hours as `05:00`, those from 1 to 24, which name the ends of hours, as the starts."""
    if not cells.str.fullmatch(HOUR).all():
        return cells.str.strip()
    hours = cells.astype(float).astype(int)
    return (hours - int(hours.max() == 24)).map("{:02d}:00".format)


def _chosen(path: Path, held: Sequence[str], form: CsvFormat) -> tuple[str, ...]:
    for name in form.columns:
        if name not in held:
            raise DataError(f"{path}: no series is named {name!r} (--set columns); it has {', '.join(held[:20])}")
    return form.columns or tuple(held)


def _from_long(path: Path, table: pd.DataFrame, form: CsvFormat) -> Rows:
    """One column per series, in order of appearance; all must have the same times."""
    import pandas as pd

    if surplus := [str(name) for name in table.columns if name not in LONG]:
        raise DataError(
            f"{path}: it is in the long format ({', '.join(LONG)}), which has no other columns; remove "
            f"{', '.join(surplus[:20])}"
        )
    held = tuple(dict.fromkeys(table["unique_id"]))
    names = _chosen(path, held, form)
    table = table[table["unique_id"].isin(names)]
    lines = table.index.to_numpy(dtype=np.int64) + 2
    stamps = read_times(path, table["ds"], form.dates, lines)
    long = pd.DataFrame({"name": table["unique_id"].to_numpy(), "time": stamps, "line": lines})
    twice = np.flatnonzero(long.duplicated(["name", "time"]))
    if len(twice):
        row = long.iloc[int(twice[0])]
        raise DataError(f"{path}, line {row.line}: series {row['name']!r} has a second value at {row.time}; remove one")
    long["value"] = numbers(path, table[["y"]], form, lines=lines)[:, 0]
    grid = long.pivot(index="time", columns="name", values="value")[list(names)]
    _require_complete(path, grid)
    first = long.groupby("time")["line"].min().to_numpy(dtype=np.int64)
    times = pd.DatetimeIndex(grid.index)
    return Rows(pd.Series([str(time) for time in times]), times, first, grid.to_numpy(dtype=np.float64), names)


def _require_complete(path: Path, grid: pd.DataFrame) -> None:
    """Raises DataError if a series lacks a time that another has."""
    absent = grid.isna()
    if not absent.any(axis=None):
        return
    name = absent.any().idxmax()
    count, time = int(absent[name].sum()), absent[name].idxmax()
    whole = [str(other) for other in grid.columns if other != name]
    raise DataError(
        f"{path}: series {name!r} has no value at {time}, and at {count:,} of {len(grid):,} times in all; the series "
        f"of a file must have the same times: cut them to their common times, or select some: --set columns={whole[0]}"
    )

"""Reads a table of time series: one row per time step. In CSV files the first column is usually the time and every
other column one series; `tables/layout.py` has the other layouts.
"""

from __future__ import annotations

import warnings
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tasks.base import DataError
from tasks.series.tables.cells import numbers
from tasks.series.tables.damage import SEPARATORS, require_separator, unreadable
from tasks.series.tables.format import PLAIN, SIGNS, CsvFormat
from tasks.series.tables.layout import FIRST, Layout, layout_of, rows_of, series_names
from tasks.series.timestamps import step_of, uneven_rows
from tasks.storage.encodings import require_text

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class SeriesTable:
    """values `[N, C]` (float64) of the named columns; times: N time stamps as ISO text.

    frequency: the step of all rows as pandas writes it, or "" where even steps were not required; uneven: in that case,
    how many steps differ from the first.
    """

    values: NDArray[np.float64]
    columns: tuple[str, ...]
    times: tuple[str, ...]
    uneven: int = 0
    frequency: str = ""


def read_series_csv(path: Path, form: CsvFormat = PLAIN, *, evenly: bool = True) -> SeriesTable:
    """Reads and checks a CSV file. Raises DataError with the line at fault if the file is missing, empty, truncated or
    garbled.

    Refused: rows with too few or too many cells, cells that are not finite numbers, columns with the same name, times
    that cannot be read and, unless `evenly` is False, times that repeat, go back, leave gaps or follow neither a fixed
    step nor a calendar step. A file truncated inside its very last number looks complete; only the task's fingerprint
    differs. `evenly` is False for published files, which nobody edits.
    """
    layout, names = _layout(path, form)
    table = _parse_numbers(path, form, names) if layout == "wide" else None
    if table is None:
        table = _parse(path, form)  # slower, but it names the cell at fault
    if len(table) < 2:
        raise DataError(
            f"{path}: {len(table)} rows and {table.shape[1]} columns; at least two rows are needed after the "
            "line of names"
        )
    rows = rows_of(path, table, layout, form, advise=evenly)
    if evenly:
        uneven, frequency = 0, step_of(path, rows.cells, rows.stamps, rows.lines)
    else:
        uneven, frequency = len(uneven_rows(rows.stamps)), ""
    times = tuple(stamp.isoformat() for stamp in rows.stamps)
    return SeriesTable(rows.values, rows.columns, times, uneven, frequency)


def read_series_text(path: Path) -> NDArray[np.float64]:
    """values `[N, C]` of a file with neither header nor times, its numbers separated by commas; it may be gzipped.
    Raises DataError.
    """
    table = _parse(path, PLAIN, header=None)
    return numbers(path, table, PLAIN, lines=np.arange(len(table)) + 1, advise=False)


def count_series(path: Path, form: CsvFormat = PLAIN) -> int:
    """The number of series that a file has, or that `form` chooses, from as little of it as possible. Raises DataError
    if it cannot hold series.
    """
    layout, names = _layout(path, form)
    chosen = series_names(path, names, layout, form)
    if layout != "long" or chosen:
        return len(chosen)
    return int(_parse(path, form)["unique_id"].nunique())


def _layout(path: Path, form: CsvFormat) -> tuple[Layout, tuple[str, ...]]:
    """The layout and the names of all columns, from the first lines alone. Raises DataError if they cannot be those
    of series.
    """
    names = tuple(_parse(path, form, header=None, nrows=1).iloc[0])
    if len(names) < 2 or any("\0" in name for name in names):
        require_text(path)
    if len(names) < 2:
        held = next((sign for sign in SEPARATORS if SIGNS[sign] in names[0]), None)
        hint = f" and holds {SEPARATORS[held]}: --set separator={held} reads such files" if held else ""
        needed = f"a column of times and at least one of numbers are needed, separated by {SEPARATORS[form.separator]}"
        raise DataError(f"{path}: its first line names 1 column{hint}; {needed}")
    require_separator(path, form)
    _check_first(path, names[0])
    twice = next((name for place, name in enumerate(names) if name and name in names[:place]), None)
    if twice is not None:
        raise DataError(f"{path}: two columns have the name {twice!r}; give every column a different name")
    head = _parse(path, form, nrows=FIRST)
    return layout_of(names, [tuple(row) for row in head.to_numpy()]), tuple(map(str, head.columns))


def _parse_numbers(path: Path, form: CsvFormat, names: tuple[str, ...]) -> pd.DataFrame | None:
    """The cells of the columns that hold series as floats; None if one is not a number or the file is damaged."""
    if not form.is_plain:  # pandas' parser would accept a separator of thousands anywhere
        return None
    texts = {
        place: str for place, name in enumerate(names) if place == 0 or (form.columns and name not in form.columns)
    }
    kinds: defaultdict[int, type] = defaultdict(lambda: float, texts)
    try:
        table = _read(path, form, dtype=kinds, float_precision="round_trip")
    except (OSError, ValueError, EOFError, Warning):
        return None
    floats = table.select_dtypes(float).to_numpy()
    return table if np.isfinite(floats).all() else None


def _parse(path: Path, form: CsvFormat, **options: Any) -> pd.DataFrame:
    """The cells as text; missing ones are empty."""
    try:
        return _read(path, form, dtype=str, **options)
    except FileNotFoundError as error:
        raise DataError(f"{path} does not exist; name the CSV file of the series") from error
    except (OSError, ValueError, EOFError, Warning) as error:  # pandas' parser errors are ValueErrors
        raise unreadable(path, form, error) from error


def _read(path: Path, form: CsvFormat, **options: Any) -> pd.DataFrame:
    import pandas as pd

    separator = SIGNS[form.separator]
    with warnings.catch_warnings():
        warnings.simplefilter("error", pd.errors.ParserWarning)  # surplus cells, which pandas would drop
        return pd.read_csv(path, sep=separator, keep_default_na=False, encoding="utf-8", index_col=False, **options)


def _check_first(path: Path, first: str) -> None:
    """Raises DataError if the first line is a row of values, which would be lost as names of columns."""
    import pandas as pd

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        is_time = any(letter.isdigit() for letter in first) and not pd.isna(pd.to_datetime(first, errors="coerce"))
    if is_time:
        raise DataError(
            f"{path}: its first line begins with the time {first!r}; put a line of names above it: date, then "
            "one name per series"
        )

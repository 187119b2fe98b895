"""Reading a table of time series: one row a time step; in CSV files the first column is the time, every other column one series."""

from __future__ import annotations

import re
import warnings
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tasks.base import DataError

if TYPE_CHECKING:
    import pandas as pd

DAY_OR_MONTH_FIRST = re.compile(r"\s*\d{1,2}[./-]\d{1,2}[./-]")
SAFE = "days stand first in its dates and are taken for months: write YYYY-MM-DD hh:mm:ss"


@dataclass(frozen=True)
class SeriesTable:
    """values `[N, C]` (float64) of the named columns; times: N time stamps as ISO text; uneven: how many steps differ from the first."""

    values: NDArray[np.float64]
    columns: tuple[str, ...]
    times: tuple[str, ...]
    uneven: int = 0


def read_series_csv(path: Path, *, evenly: bool = True) -> SeriesTable:
    """Reads and checks a CSV file. Raises DataError, with the line at fault, where the file is missing, empty, cut off or garbled.

    Refused: rows with too few or too many cells, cells that are no finite numbers, times that cannot be read and, unless `evenly` is
    False, times that repeat, go back or leave gaps. A file cut off inside its very last number cannot be told from a whole one; the task's
    fingerprint can.
    """
    table = _parse_numbers(path)
    if table is None or not np.isfinite(table.iloc[:, 1:].to_numpy(float)).all():
        table = _parse(path)  # slower, but it can name the cell at fault
    if table.shape[1] < 2 or len(table) < 2:
        raise DataError(f"{path}: {len(table)} rows and {table.shape[1]} columns; needed are a column of times and at least one of numbers")
    _check_header(path, str(table.columns[0]))
    times, uneven = _times(path, table, evenly)
    values = np.column_stack([_numbers(path, table, name) for name in table.columns[1:]])
    return SeriesTable(values, tuple(map(str, table.columns[1:])), times, uneven)


def read_series_text(path: Path) -> NDArray[np.float64]:
    """values `[N, C]` of a file without header and times, numbers separated by commas, also gzipped. Raises DataError."""
    table = _parse(path, header=None)
    return np.column_stack([_numbers(path, table, name, first_line=1) for name in table.columns])


def count_columns(path: Path) -> int:
    """How many series a CSV file holds, from its first line alone. Raises DataError."""
    table = _parse(path, nrows=0)
    if table.shape[1] < 2:
        raise DataError(f"{path}: its first line names {table.shape[1]} column; needed are a column of times and at least one of numbers")
    return table.shape[1] - 1


def _parse_numbers(path: Path) -> pd.DataFrame | None:
    """The cells of all columns but the first as floats; None where one is not a number or the file is damaged."""
    try:
        return _read(path, dtype=defaultdict(lambda: float, {0: str}), float_precision="round_trip")
    except (OSError, ValueError, EOFError, Warning):
        return None


def _parse(path: Path, **options: Any) -> pd.DataFrame:
    """The cells as text; missing cells stay empty."""
    try:
        return _read(path, dtype=str, **options)
    except FileNotFoundError as error:
        raise DataError(f"{path} does not exist; give the CSV file of the series") from error
    except (OSError, ValueError, EOFError, Warning) as error:  # pandas' parser errors and UnicodeDecodeError are ValueErrors
        reason = str(error).strip().splitlines()[-1]
        raise DataError(f"{path} is not a readable CSV file: {reason}; fetch it again") from error


def _read(path: Path, **options: Any) -> pd.DataFrame:
    import pandas as pd

    with warnings.catch_warnings():
        warnings.simplefilter("error", pd.errors.ParserWarning)  # surplus cells, which pandas would drop
        return pd.read_csv(path, keep_default_na=False, encoding="utf-8", index_col=False, **options)


def _check_header(path: Path, first: str) -> None:
    """Raises DataError where the first line is a row of values, which would be lost as the columns' names."""
    import pandas as pd

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        is_time = any(letter.isdigit() for letter in first) and not pd.isna(pd.to_datetime(first, errors="coerce"))
    if is_time:
        raise DataError(f"{path}: its first line begins with the time {first!r}; a line of names goes above it: date, then one a series")


def _times(path: Path, table: pd.DataFrame, evenly: bool) -> tuple[tuple[str, ...], int]:
    """Time stamps of the first column, and how many steps are not a repetition of the first one; none may be where `evenly`."""
    import pandas as pd

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # pandas warns where it has to guess the format cell by cell
        # in UTC, where a column changes to summer time and back evenly; times without a zone stay what they are
        stamps = pd.to_datetime(table.iloc[:, 0], errors="coerce", utc=True).dt.tz_localize(None)
    if stamps.isna().any():
        row = int(np.argmax(stamps.isna().to_numpy()))
        raise DataError(
            f"{path}, line {row + 2}: {_cell(table.iloc[row, 0])} is not a time like those before it; the file is cut off or garbled, "
            f"or {SAFE}"
        )
    gaps = np.diff(stamps.to_numpy())
    wrong = np.flatnonzero((gaps != gaps[0]) | (gaps <= np.timedelta64(0)))
    if len(wrong) and evenly:
        row = int(wrong[0]) + 1
        hint = f"; {SAFE}" if DAY_OR_MONTH_FIRST.match(str(table.iloc[0, 0])) else ""
        raise DataError(f"{path}, line {row + 2}: the time {_cell(table.iloc[row, 0])} breaks the spacing of the first two rows{hint}")
    return tuple(stamp.isoformat() for stamp in stamps), len(wrong)


def _numbers(path: Path, table: pd.DataFrame, name: Any, first_line: int = 2) -> NDArray[np.float64]:
    """One column as finite numbers; `first_line`: where the first row stands in the file."""
    import pandas as pd

    numbers = pd.to_numeric(table[name], errors="coerce").to_numpy(dtype=np.float64)
    bad = np.flatnonzero(~np.isfinite(numbers))
    if len(bad):
        row = int(bad[0])
        cell = _cell(table[name].iloc[row])
        raise DataError(f"{path}, line {row + first_line}, column {name!r}: {cell} is not a finite number; the file is cut off or garbled")
    return numbers


def _cell(content: object) -> str:
    return repr(content) if isinstance(content, str) and content else "an empty cell"

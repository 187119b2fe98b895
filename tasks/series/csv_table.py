"""Reads a table of time series: one row per time step. In CSV files the first column is the time and every other column
one series.
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
from tasks.series.timestamps import quoted, read_times, step_of, uneven_rows

if TYPE_CHECKING:
    import pandas as pd

OTHER_SIGNS = {";": "semicolons", "\t": "tabs", "|": "bars"}  # other separators of columns


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


def read_series_csv(path: Path, *, evenly: bool = True) -> SeriesTable:
    """Reads and checks a CSV file. Raises DataError with the line at fault if the file is missing, empty, truncated or
    garbled.

    Refused: rows with too few or too many cells, cells that are not finite numbers, columns with the same name, times
    that cannot be read and, unless `evenly` is False, times that repeat, go back, leave gaps or follow neither a fixed
    step nor a calendar step. A file truncated inside its very last number looks complete; only the task's fingerprint
    differs.
    """
    read_names(path)
    table = _parse_numbers(path)
    if table is None or not np.isfinite(table.iloc[:, 1:].to_numpy(float)).all():
        table = _parse(path)  # slower, but it names the cell at fault
    if len(table) < 2:
        raise DataError(
            f"{path}: {len(table)} rows and {table.shape[1]} columns; at least two rows are needed after the "
            "line of names"
        )
    stamps = read_times(path, table.iloc[:, 0])
    uneven, frequency = (0, step_of(path, table.iloc[:, 0], stamps)) if evenly else (len(uneven_rows(stamps)), "")
    values = np.column_stack([_numbers(path, table, name) for name in table.columns[1:]])
    return SeriesTable(
        values, tuple(map(str, table.columns[1:])), tuple(stamp.isoformat() for stamp in stamps), uneven, frequency
    )


def read_series_text(path: Path) -> NDArray[np.float64]:
    """values `[N, C]` of a file with neither header nor times, its numbers separated by commas; it may be gzipped.
    Raises DataError.
    """
    table = _parse(path, header=None)
    return np.column_stack([_numbers(path, table, name, first_line=1) for name in table.columns])


def read_names(path: Path) -> tuple[str, ...]:
    """The names of all columns, that of the times first, read from the first line alone. Raises DataError if they
    cannot be those of a series.
    """
    names = tuple(_parse(path, header=None, nrows=1).iloc[0])
    if len(names) < 2:
        held = next((f" and holds {called}" for sign, called in OTHER_SIGNS.items() if sign in names[0]), "")
        needed = "a column of times and at least one of numbers are needed, separated by commas"
        raise DataError(f"{path}: its first line names 1 column{held}; {needed}")
    _check_first(path, names[0])
    twice = next((name for place, name in enumerate(names) if name and name in names[:place]), None)
    if twice is not None:
        raise DataError(f"{path}: two columns have the name {twice!r}; give every column a different name")
    return names


def _parse_numbers(path: Path) -> pd.DataFrame | None:
    """The cells of all columns but the first as floats; None if one is not a number or the file is damaged."""
    try:
        return _read(path, dtype=defaultdict(lambda: float, {0: str}), float_precision="round_trip")
    except (OSError, ValueError, EOFError, Warning):
        return None


def _parse(path: Path, **options: Any) -> pd.DataFrame:
    """The cells as text; missing ones are empty."""
    try:
        return _read(path, dtype=str, **options)
    except FileNotFoundError as error:
        raise DataError(f"{path} does not exist; name the CSV file of the series") from error
    except (
        OSError,
        ValueError,
        EOFError,
        Warning,
    ) as error:  # pandas' parser errors and UnicodeDecodeError are ValueErrors
        reason = str(error).strip().splitlines()[-1]
        raise DataError(f"{path} is not a readable CSV file: {reason}; fetch it again") from error


def _read(path: Path, **options: Any) -> pd.DataFrame:
    import pandas as pd

    with warnings.catch_warnings():
        warnings.simplefilter("error", pd.errors.ParserWarning)  # surplus cells, which pandas would drop
        return pd.read_csv(path, keep_default_na=False, encoding="utf-8", index_col=False, **options)


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


def _numbers(path: Path, table: pd.DataFrame, name: Any, first_line: int = 2) -> NDArray[np.float64]:
    """One column as finite numbers; `first_line`: the line number of the first row."""
    import pandas as pd

    numbers = pd.to_numeric(table[name], errors="coerce").to_numpy(dtype=np.float64)
    bad = np.flatnonzero(~np.isfinite(numbers))
    if len(bad):
        row = int(bad[0])
        cell = quoted(table[name].iloc[row])
        raise DataError(
            f"{path}, line {row + first_line}, column {name!r}: {cell} is not a finite number; the file is "
            "truncated or garbled"
        )
    return numbers

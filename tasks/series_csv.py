"""Reading a table of time series from CSV: one row a time step, the first column the time, every other column one series."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from tasks.base import DataError

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class SeriesTable:
    """values `[N, C]` (float64) of the named columns; times: N time stamps, equally spaced, as ISO text."""

    values: NDArray[np.float64]
    columns: tuple[str, ...]
    times: tuple[str, ...]


def read_series_csv(path: Path) -> SeriesTable:
    """Reads and checks a CSV file. Raises DataError, with the line at fault, where the file is missing, empty, cut off or garbled.

    Refused: rows with too few or too many cells, cells that are no finite numbers, times that cannot be read, repeat, go back or leave
    gaps. A file cut off inside its very last number cannot be told from a whole one; the task's fingerprint can.
    """
    table = _parse(path)
    if table.shape[1] < 2 or len(table) < 2:
        raise DataError(f"{path}: {len(table)} rows and {table.shape[1]} columns; needed are a column of times and at least one of numbers")
    times = _times(path, table)
    values = np.column_stack([_numbers(path, table, name) for name in table.columns[1:]])
    return SeriesTable(values, tuple(map(str, table.columns[1:])), times)


def _parse(path: Path) -> pd.DataFrame:
    """The cells as text; missing cells stay empty."""
    import pandas as pd

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)  # surplus cells, which pandas would drop
            return pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8", index_col=False)
    except FileNotFoundError as error:
        raise DataError(f"{path} does not exist; give the CSV file of the series") from error
    except (OSError, ValueError, pd.errors.ParserWarning) as error:  # pandas' parser errors and UnicodeDecodeError are ValueErrors
        reason = str(error).strip().splitlines()[-1]
        raise DataError(f"{path} is not a readable CSV file: {reason}; fetch it again") from error


def _times(path: Path, table: pd.DataFrame) -> tuple[str, ...]:
    """Time stamps of the first column, checked to be equally spaced and rising."""
    import pandas as pd

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # pandas warns where it has to guess the format cell by cell
        stamps = pd.to_datetime(table.iloc[:, 0], errors="coerce")
    if stamps.isna().any():
        row = int(np.argmax(stamps.isna().to_numpy()))
        raise DataError(f"{path}, line {row + 2}: {_cell(table.iloc[row, 0])} is not a time; the file is cut off or garbled")
    gaps = np.diff(stamps.to_numpy())
    wrong = np.flatnonzero((gaps != gaps[0]) | (gaps <= np.timedelta64(0)))
    if len(wrong):
        row = int(wrong[0]) + 1
        raise DataError(f"{path}, line {row + 2}: the time {_cell(table.iloc[row, 0])} breaks the spacing of the first two rows")
    return tuple(stamp.isoformat() for stamp in stamps)


def _numbers(path: Path, table: pd.DataFrame, name: str) -> NDArray[np.float64]:
    """One column as finite numbers."""
    import pandas as pd

    numbers = pd.to_numeric(table[name], errors="coerce").to_numpy(dtype=np.float64)
    bad = np.flatnonzero(~np.isfinite(numbers))
    if len(bad):
        row = int(bad[0])
        cell = _cell(table[name].iloc[row])
        raise DataError(f"{path}, line {row + 2}, column {name!r}: {cell} is not a finite number; the file is cut off or garbled")
    return numbers


def _cell(content: object) -> str:
    return repr(content) if isinstance(content, str) and content else "an empty cell"

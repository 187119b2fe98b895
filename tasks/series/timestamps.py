"""The column of times of a CSV file: reads its cells and finds the step from row to row."""

from __future__ import annotations

import re
import warnings
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from tasks.base import DataError
from tasks.series.tables.cells import quoted
from tasks.series.tables.format import Dates
from tasks.series.tables.time_faults import find_fault

if TYPE_CHECKING:
    import pandas as pd

DAY_OR_MONTH_FIRST = re.compile(r"\s*\d{1,2}[./-]\d{1,2}[./-]")
ZONE = re.compile(r":\d\d(\.\d+)?\s*[+-]\d\d:?\d\d\s*$")
#: Seconds since 1970, from 1973 on, and milliseconds from 2001 on.
UNIX = {"s": r"\s*\d{9,10}\s*", "ms": r"\s*\d{13}\s*"}
SAFE = "its dates begin with the day, which is read as the month: --set dates=day-first, or write YYYY-MM-DD hh:mm:ss"
STEPS = "even steps or calendar steps: business days, or starts or ends of months, quarters or years"
FIRST_YEAR, LAST_YEAR = 1678, 2261  # of nanoseconds in 64 bits
#: Numbers of first rows from which a calendar step is inferred: fewer are tried in case one of them is missing or
#: wrong.
INFERRED_FROM = (24, 12, 6, 3)


def read_times(
    path: Path, cells: pd.Series[str], dates: Dates, lines: NDArray[np.int64] | None = None
) -> pd.DatetimeIndex:
    """The time stamps, in UTC if they have a zone. Raises DataError with the line of the first that cannot be read.

    lines: the line of each cell, counted from 2 by default.
    """
    import pandas as pd

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # pandas warns when it guesses the format cell by cell
        # in UTC the steps stay even when summer time begins or ends; times without a zone stay as they are
        stamps = _parsed(cells, dates)
        unread = np.flatnonzero(stamps.isna())
        if (len(unread) or len(uneven_rows(stamps))) and (unit := _unix_unit(cells)):
            return pd.DatetimeIndex(pd.to_datetime(cells.astype(np.int64), unit=unit))
        if len(unread):
            row = int(unread[0])
            raise DataError(f"{path}, line {row + 2 if lines is None else lines[row]}: {_fault(cells, row)}")
    return stamps


def _parsed(cells: pd.Series[str], dates: Dates) -> pd.DatetimeIndex:
    import pandas as pd

    read = pd.to_datetime(cells, errors="coerce", utc=True, dayfirst=dates == "day-first")
    return pd.DatetimeIndex(read).tz_localize(None)


def _unix_unit(cells: pd.Series[str]) -> Literal["s", "ms"] | None:
    """The unit of cells that all are integers since 1970; None for others."""
    units: tuple[Literal["s", "ms"], ...] = ("s", "ms")
    return next((unit for unit in units if cells.str.fullmatch(UNIX[unit]).all()), None)


def uneven_rows(stamps: pd.DatetimeIndex) -> NDArray[np.int64]:
    """The rows whose step from the row before differs from the first step or does not go forward."""
    gaps = np.diff(stamps.to_numpy())
    return np.flatnonzero((gaps != gaps[0]) | (gaps <= np.timedelta64(0))) + 1


def step_of(path: Path, cells: pd.Series[str], stamps: pd.DatetimeIndex, lines: NDArray[np.int64]) -> str:
    """The step from row to row as pandas writes it: "h", "15min", "D", "MS". Raises DataError with the first line that
    breaks it. `lines`: the line of each row.
    """
    import pandas as pd

    if stamps[1] < stamps[0]:
        raise DataError(
            f"{path}, line {lines[1]}: the time {quoted(cells.iloc[1])} goes back; sort the rows by time, the oldest "
            "first"
        )
    uneven = uneven_rows(stamps)
    if not len(uneven):
        to_offset: Any = pd.tseries.frequencies.to_offset  # its stubs know no time differences
        return str(to_offset(stamps[1] - stamps[0]).freqstr)
    found = [(*_first_break(stamps, step), step) for rows in INFERRED_FROM if (step := _calendar_step(stamps[:rows]))]
    if not found:
        raise DataError(f"{path}, {_uneven(cells, stamps, lines)}")
    row, due, calendar = max(found, key=lambda one: one[0])
    if row < len(stamps):
        expected = f"; {due:%Y-%m-%d} is expected there: fill the gaps" if due is not None else ""
        raise DataError(
            f"{path}, line {lines[row]}: the time {quoted(cells.iloc[row])} breaks the calendar steps "
            f"({calendar}){expected}"
        )
    return calendar


def _uneven(cells: pd.Series[str], stamps: pd.DatetimeIndex, lines: NDArray[np.int64]) -> str:
    """Which row breaks the spacing and why."""
    fault = find_fault(stamps)
    row = fault.row if fault else int(uneven_rows(stamps)[0])
    start = f"line {lines[row]}: the time {quoted(cells.iloc[row])} breaks the spacing"
    if DAY_OR_MONTH_FIRST.match(str(cells.iloc[0])) and _is_even_day_first(cells):
        return f"{start}; {SAFE}"
    if fault:
        return f"{start}; {fault.reason(lines)}"
    zone = (
        "; times with a zone are read as UTC, where the day may differ: leave the zone out"
        if ZONE.search(str(cells.iloc[0]))
        else ""
    )
    return f"{start} of the first two rows; the times must follow {STEPS}, without gaps{zone}"


def _is_even_day_first(cells: pd.Series[str]) -> bool:
    """Whether dates that begin with the day follow one step."""
    import pandas as pd

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        stamps = _parsed(cells, "day-first")
    return not np.any(stamps.isna()) and (not len(uneven_rows(stamps)) or pd.infer_freq(stamps) is not None)


def _first_break(stamps: pd.DatetimeIndex, calendar: str) -> tuple[int, pd.Timestamp | None]:
    """The first row that does not follow the step, and the time expected there; the number of rows if all follow it."""
    import pandas as pd

    due = pd.date_range(stamps[0], stamps.max(), freq=calendar)
    shared = min(len(due), len(stamps))
    row = int(np.argmax([*(due[:shared] != stamps[:shared]), True]))
    return row, due[row] if row < len(due) else None


def _calendar_step(stamps: pd.DatetimeIndex) -> str | None:
    """The calendar step that fits the first rows; None if none does, or if the step is fixed."""
    import pandas as pd

    if len(stamps) < 3 or not len(uneven_rows(stamps)):
        return None
    found = pd.infer_freq(stamps)
    return None if found is None or found.endswith("bh") else found  # business hours have no known period


def _fault(cells: pd.Series[str], row: int) -> str:
    """Why a cell is not a time: outside pandas' range, or not written as one."""
    import pandas as pd

    cell = quoted(cells.iloc[row])
    with suppress(ValueError):
        stamp = pd.Timestamp(cells.iloc[row])
        if not pd.isna(stamp) and not FIRST_YEAR <= stamp.year <= LAST_YEAR:
            return f"{cell} is outside the years that can be read, {FIRST_YEAR} to {LAST_YEAR}; leave such rows out"
    if row == 0:
        return f"{cell} is not a time; the first column must hold times such as 2021-01-31 13:00:00"
    day_first = DAY_OR_MONTH_FIRST.match(str(cells.iloc[0])) and _is_even_day_first(cells)
    cause = SAFE if day_first else "write all times in one format, and fill in those that are missing"
    return f"{cell} is not a time like those before it; {cause}"

"""The column of times of a CSV file: how its cells are read, and by what step the rows follow each other."""

from __future__ import annotations

import re
import warnings
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tasks.base import DataError

if TYPE_CHECKING:
    import pandas as pd

DAY_OR_MONTH_FIRST = re.compile(r"\s*\d{1,2}[./-]\d{1,2}[./-]")
ZONE = re.compile(r":\d\d(\.\d+)?\s*[+-]\d\d:?\d\d\s*$")
SAFE = "days stand first in its dates and are taken for months: write YYYY-MM-DD hh:mm:ss"
STEPS = "even steps, or the calendar's: business days, or starts or ends of months, quarters or years"
FIRST_YEAR, LAST_YEAR = 1678, 2261  # of nanoseconds in 64 bits
TELLING = (
    24,
    12,
    6,
    3,
)  # rows that may tell a step of the calendar: fewer than the first where one of these is missing or wrong


def read_times(path: Path, cells: pd.Series[str]) -> pd.DatetimeIndex:
    """The time stamps, in UTC where they have a zone. Raises DataError with the line of the first that cannot be
    read.
    """
    import pandas as pd

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # pandas warns where it has to guess the format cell by cell
        # in UTC, where a column changes to summer time and back evenly; times without a zone stay what they are
        stamps = pd.DatetimeIndex(pd.to_datetime(cells, errors="coerce", utc=True)).tz_localize(None)
        unread = np.flatnonzero(stamps.isna())
        if len(unread):
            raise DataError(f"{path}, line {unread[0] + 2}: {_fault(cells, int(unread[0]))}")
    return stamps


def uneven_rows(stamps: pd.DatetimeIndex) -> NDArray[np.int64]:
    """The rows whose step from the row before is not the first one's, or does not go forward."""
    gaps = np.diff(stamps.to_numpy())
    return np.flatnonzero((gaps != gaps[0]) | (gaps <= np.timedelta64(0))) + 1


def step_of(path: Path, cells: pd.Series[str], stamps: pd.DatetimeIndex) -> str:
    """The step from row to row as pandas writes it: "h", "15min", "D", "MS". Raises DataError with the line that breaks
    it.
    """
    import pandas as pd

    if stamps[1] < stamps[0]:
        raise DataError(
            f"{path}, line 3: the time {quoted(cells.iloc[1])} goes back; sort the rows by time, the oldest first"
        )
    uneven = uneven_rows(stamps)
    if not len(uneven):
        to_offset: Any = pd.tseries.frequencies.to_offset  # its stubs know no time differences
        return str(to_offset(stamps[1] - stamps[0]).freqstr)
    found = [(*_first_break(stamps, step), step) for rows in TELLING if (step := _calendar_step(stamps[:rows]))]
    if not found:
        row = int(uneven[0])
        raise DataError(
            f"{path}, line {row + 2}: the time {quoted(cells.iloc[row])} breaks the spacing of the first two "
            f"rows; {_advice(cells)}"
        )
    row, due, calendar = max(found, key=lambda one: one[0])
    if row < len(stamps):
        told = f"; {due:%Y-%m-%d} is due there: gaps have to be filled" if due is not None else ""
        raise DataError(
            f"{path}, line {row + 2}: the time {quoted(cells.iloc[row])} breaks the calendar's steps ({calendar}){told}"
        )
    return calendar


def _advice(cells: pd.Series[str]) -> str:
    first = str(cells.iloc[0])
    if DAY_OR_MONTH_FIRST.match(first):
        return SAFE
    zone = "; times with a zone are taken in UTC, where days may be others: leave it out" if ZONE.search(first) else ""
    return f"needed are {STEPS}, without gaps{zone}"


def _first_break(stamps: pd.DatetimeIndex, calendar: str) -> tuple[int, pd.Timestamp | None]:
    """The first row that is not where the step leads, and what is due there; as many rows as there are where all
    are.
    """
    import pandas as pd

    due = pd.date_range(stamps[0], stamps.max(), freq=calendar)
    shared = min(len(due), len(stamps))
    row = int(np.argmax([*(due[:shared] != stamps[:shared]), True]))
    return row, due[row] if row < len(due) else None


def _calendar_step(stamps: pd.DatetimeIndex) -> str | None:
    """The step of the calendar that explains the first rows; None where none does, or a fixed one would."""
    import pandas as pd

    if len(stamps) < 3 or not len(uneven_rows(stamps)):
        return None
    found = pd.infer_freq(stamps)
    return None if found is None or found.endswith("bh") else found  # of hours of business nobody knows the period


def _fault(cells: pd.Series[str], row: int) -> str:
    """Why a cell is no time: out of pandas' range, or not written as one."""
    import pandas as pd

    told = quoted(cells.iloc[row])
    with suppress(ValueError):
        stamp = pd.Timestamp(cells.iloc[row])
        if not pd.isna(stamp) and not FIRST_YEAR <= stamp.year <= LAST_YEAR:
            return f"{told} lies outside the years that can be read, {FIRST_YEAR} to {LAST_YEAR}; leave such rows out"
    if row == 0:
        return f"{told} is no time; the first column holds times such as 2021-01-31 13:00:00"
    hint = f", or {SAFE}" if DAY_OR_MONTH_FIRST.match(str(cells.iloc[0])) else ""
    return f"{told} is not a time like those before it; the file is cut off or garbled{hint}"


def quoted(content: object) -> str:
    """A cell as an error tells it."""
    return repr(content) if isinstance(content, str) and content else "an empty cell"

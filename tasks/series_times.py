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
SAFE = "days stand first in its dates and are taken for months: write YYYY-MM-DD hh:mm:ss"
STEPS = "even steps, or the calendar's: business days, or starts or ends of months, quarters or years"
FIRST_YEAR, LAST_YEAR = 1678, 2261  # of nanoseconds in 64 bits
TELLING = 24  # rows that tell a step of the calendar: two years of months, or business days with several weekends


def read_times(path: Path, cells: pd.Series[str]) -> pd.DatetimeIndex:
    """The time stamps, in UTC where they have a zone. Raises DataError with the line of the first that cannot be read."""
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
    """The step from row to row as pandas writes it: "h", "15min", "D", "MS". Raises DataError with the line that breaks it."""
    import pandas as pd

    uneven = uneven_rows(stamps)
    if not len(uneven):
        to_offset: Any = pd.tseries.frequencies.to_offset  # its stubs know no time differences
        return str(to_offset(stamps[1] - stamps[0]).freqstr)
    calendar = _calendar_step(stamps[:TELLING])
    if calendar is None:
        row = int(uneven[0])
        hint = SAFE if DAY_OR_MONTH_FIRST.match(str(cells.iloc[0])) else f"needed are {STEPS}, without gaps"
        raise DataError(f"{path}, line {row + 2}: the time {quoted(cells.iloc[row])} breaks the spacing of the first two rows; {hint}")
    due = pd.date_range(stamps[0], stamps.max(), freq=calendar)
    shared = min(len(due), len(stamps))
    row = int(np.argmax([*(due[:shared] != stamps[:shared]), True]))
    if row < len(stamps):
        told = f"; {due[row]:%Y-%m-%d} is due there: gaps have to be filled" if row < len(due) else ""
        raise DataError(f"{path}, line {row + 2}: the time {quoted(cells.iloc[row])} breaks the calendar's steps ({calendar}){told}")
    return calendar


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
        if not FIRST_YEAR <= pd.Timestamp(cells.iloc[row]).year <= LAST_YEAR:
            return f"{told} lies outside the years that can be read, {FIRST_YEAR} to {LAST_YEAR}; leave such rows out"
    if row == 0:
        return f"{told} is no time; the first column holds times such as 2021-01-31 13:00:00"
    hint = f", or {SAFE}" if DAY_OR_MONTH_FIRST.match(str(cells.iloc[0])) else ""
    return f"{told} is not a time like those before it; the file is cut off or garbled{hint}"


def quoted(content: object) -> str:
    """A cell as an error tells it."""
    return repr(content) if isinstance(content, str) and content else "an empty cell"

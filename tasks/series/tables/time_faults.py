"""Why times do not follow their step: a gap with the time that is due, a repeat, or a change of summer time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import pandas as pd

USUAL = 0.9  # fraction of the steps that must agree before another one counts as a fault
#: Zones whose clocks change at the hours that are usual on their continents.
ZONES = (
    "Europe/Berlin",
    "Europe/London",
    "Europe/Athens",
    "America/New_York",
    "Australia/Sydney",
    "Pacific/Auckland",
    "America/Santiago",
)
IN_UTC = "write the times in UTC, or with their offset: 2021-03-28 03:00+02:00"


@dataclass(frozen=True)
class Fault:
    """The first row whose step is not the usual one. step: the usual one; others: how many more rows break it."""

    row: int
    stamps: pd.DatetimeIndex
    step: pd.Timedelta
    others: int

    def reason(self, lines: NDArray[np.int64]) -> str:
        """What is wrong there and what to do. `lines`: the line of each row."""
        before, now = self.stamps[self.row - 1], self.stamps[self.row]
        due = before + self.step
        more = f" (and {self.others:,} more such places)" if self.others else ""
        if now <= before:
            return f"{self._backwards(lines, now)}{more}"
        if (now - before) % self.step:
            return f"{due} is due there, {self.step} after line {lines[self.row - 1]}{more}; write evenly spaced times"
        missing = (now - before) // self.step - 1
        rows = "1 row is missing" if missing == 1 else f"{missing:,} rows are missing"
        zone = next((zone for zone in ZONES if _is_skipped(due, zone)), None)
        summer = f"; summer time begins there, in {zone} for example: {IN_UTC}" if zone else "; fill the gap"
        return f"{due} is due there, {rows}{more}{summer}"

    def _backwards(self, lines: NDArray[np.int64], now: pd.Timestamp) -> str:
        same = np.flatnonzero(self.stamps[: self.row] == now)
        if not len(same):
            return f"it is earlier than the time of line {lines[self.row - 1]}; sort the rows by time, the oldest first"
        zone = next((zone for zone in ZONES if _is_repeated(now, zone)), None)
        summer = f"; summer time ends there, in {zone} for example: {IN_UTC}" if zone else "; remove one of the two"
        return f"it repeats the time of line {lines[same[-1]]}{summer}"


def find_fault(stamps: pd.DatetimeIndex) -> Fault | None:
    """The first break of a step that nearly all rows follow; None if there is no such step."""
    import pandas as pd

    gaps = np.diff(stamps.to_numpy())
    steps, counts = np.unique(gaps, return_counts=True)
    usual = steps[counts.argmax()]
    if usual <= np.timedelta64(0) or counts.max() < USUAL * len(gaps):
        return None
    breaks = np.flatnonzero(gaps != usual)
    return Fault(int(breaks[0]) + 1, stamps, pd.Timedelta(usual), len(breaks) - 1) if len(breaks) else None


def _is_skipped(time: pd.Timestamp, zone: str) -> bool:
    """Whether clocks never show this time, because summer time begins."""
    import pandas as pd

    return bool(pd.isna(time.tz_localize(zone, nonexistent="NaT", ambiguous=True)))


def _is_repeated(time: pd.Timestamp, zone: str) -> bool:
    """Whether clocks show this time twice, because summer time ends."""
    import pandas as pd

    return bool(pd.isna(time.tz_localize(zone, ambiguous="NaT", nonexistent="shift_forward")))

"""Times that are not even: the message names the gap, the repeat, summer time or the order of day and month, whichever
is the cause.
"""

from __future__ import annotations

import pandas as pd
import pytest

from tests.tasks.series.test_csv_cells_and_layouts import ROWS, hours, refusal, table, task

SLASHES = "%m/%d/%Y %H:%M"
DAY_FIRST = "begin with the day"


def without(times, row):
    """One more time at the end instead of one in the middle."""
    step = pd.Timestamp(times[1]) - pd.Timestamp(times[0])
    return [*times[:row], *times[row + 1 :], f"{pd.Timestamp(times[-1]) + step:{SLASHES}}"]


@pytest.mark.parametrize("row", [1, 2, 100, 258])
def test_a_missing_hour_is_named_with_the_time_that_is_due(tmp_path, row):
    times = hours(form=SLASHES)
    message = refusal(tmp_path, table(without(times, row)))
    assert f"line {row + 2}: the time" in message
    assert f"{pd.Timestamp(times[row])} is due there, 1 row is missing; fill the gap" in message
    assert DAY_FIRST not in message


@pytest.mark.parametrize("row", [1, 100, 258])
def test_a_repeated_hour_is_named_with_the_line_that_it_repeats(tmp_path, row):
    times = hours(form=SLASHES)
    message = refusal(tmp_path, table([*times[: row + 1], *times[row:-1]]))
    assert f"line {row + 3}: the time {times[row]!r}" in message
    assert f"it repeats the time of line {row + 2}; remove one of the two" in message
    assert DAY_FIRST not in message


@pytest.mark.parametrize("freq", ["h", "D"])
def test_days_are_said_to_be_first_only_where_that_reading_is_even(tmp_path, freq):
    times = hours(freq, form="%d/%m/%Y %H:%M")
    message = refusal(tmp_path, table(times))
    assert DAY_FIRST in message
    assert "--set dates=day-first" in message
    read = task(tmp_path, table(times), dates="day-first")
    assert (read.first_time, read.frequency) == ("2021-01-01T00:00:00", freq)


@pytest.mark.parametrize("zone", ["Europe/Berlin", "America/New_York", "Australia/Sydney"])
@pytest.mark.parametrize("freq", ["h", "15min"])
def test_a_change_of_summer_time_is_named_as_the_cause(tmp_path, zone, freq):
    for month in ("2021-03", "2021-04", "2021-10", "2021-11"):
        sundays = pd.date_range(f"{month}-01", periods=4, freq="W-SUN")
        for sunday in sundays:
            times = hours(freq, str(sunday - pd.Timedelta("20h")), "%Y-%m-%d %H:%M", zone)
            naive = pd.DatetimeIndex(times)
            if len(set(naive[1:] - naive[:-1])) > 1:
                message = refusal(tmp_path, table(times))
                begins = pd.Timedelta(naive[-1] - naive[0]) > pd.Timedelta(freq if freq != "h" else "1h") * (ROWS - 1)
                assert f"summer time {'begins' if begins else 'ends'} there" in message
                assert "in UTC" in message

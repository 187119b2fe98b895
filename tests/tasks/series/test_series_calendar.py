"""Series with calendar steps: months, quarters, years, business days."""

from __future__ import annotations

import datetime

import pandas as pd
import pytest

from tasks.base import DataError
from tasks.series.csv_table import read_series_csv
from tasks.series.gluonts_repository import period_of
from tasks.series.gluonts_view import as_gluonts
from tasks.series.own_series import OwnSeries, OwnSeriesOptions
from tests.tasks.series.series_files import power, write_csv

OPTIONS = OwnSeriesOptions(horizon=24, track="fixed-96")
CALENDAR = [
    ("MS", "MS"),
    ("ME", "ME"),
    ("2MS", "2MS"),
    ("QS", "QS-OCT"),
    ("QE", "QE-DEC"),
    ("YS", "YS-JAN"),
    ("YE", "YE-DEC"),
    ("B", "B"),
    ("BME", "BME"),
    ("WOM-3FRI", "WOM-3FRI"),
]


def written(tmp_path, times):
    path = tmp_path / "mine.csv"
    path.write_text("\n".join(["date,a", *(f"{time},{place % 7}" for place, time in enumerate(times))]))
    return path


def months(count, first=1700):
    return [str(datetime.date(first + place // 12, place % 12 + 1, 1)) for place in range(count)]


def ends_of_months(count):
    return [f"{time:%Y-%m-%d}" for time in pd.date_range("2019-01-31", periods=count, freq="ME")]


def weekdays(count):
    days = (datetime.date(2020, 1, 1) + datetime.timedelta(place) for place in range(2 * count))
    return [str(day) for day in days if day.weekday() < 5][:count]


@pytest.mark.parametrize(("frequency", "expected"), CALENDAR)
def test_a_file_in_calendar_steps_is_read(tmp_path, frequency, expected):
    times = [f"{time:%Y-%m-%d %H:%M:%S}" for time in pd.date_range("1999-01-05 06:00", periods=70, freq=frequency)]
    table = read_series_csv(written(tmp_path, times))
    assert (table.frequency, table.uneven, len(table.values)) == (expected, 0, 70)
    assert table.times == tuple(time.replace(" ", "T") for time in times)


def test_months_and_weekdays_counted_by_hand_are_read(tmp_path):
    assert read_series_csv(written(tmp_path, months(900))).frequency == "MS"
    assert read_series_csv(written(tmp_path, weekdays(900))).frequency == "B"


def test_months_are_windows_of_rows_as_hours_are(tmp_path):
    values = power(1_000)[:, :2]
    hours, month = (write_csv(tmp_path / f"{f}.csv", values, ("a", "b"), "1700-03-01", f) for f in ("h", "MS"))
    by_hours, by_months = OwnSeries(OPTIONS, hours), OwnSeries(OPTIONS, month)
    assert by_hours.fingerprint == by_months.fingerprint
    first = [next(task.eval_batches("test", 8)) for task in (by_hours, by_months)]
    assert first[0].inputs.equal(first[1].inputs)
    assert first[0].targets.equal(first[1].targets)
    info = by_months.info()
    assert dict(info.splits) == {"train": 700, "valid": 100, "test": 200}
    assert (info.extra["frequency"], info.extra["uneven_steps"]) == ("MS", 0)


def changed(times, row, time=None):
    return [*times[:row], *([time] if time else []), *times[row + 1 :]]


@pytest.mark.parametrize(
    ("times", "message"),
    [
        (
            changed(months(100), 50),
            r"line 52: the time '1704-04-01' breaks .* \(MS\); 1704-03-01 is expected there",
        ),
        (changed(months(100), 50, "1704-03-02"), r"line 52: the time '1704-03-02' breaks .* \(MS\); 1704-03-01 is exp"),
        (changed(months(100), 99, "1708-03-01"), r"line 101: the time '1708-03-01' breaks .*calendar"),
        (
            changed(months(100), 99, "1690-01-01"),
            r"line 101: the time '1690-01-01' breaks .*calendar.* \(MS\)$",
        ),
        (changed(months(100), 50, "1704-02-01"), r"line 52: the time '1704-02-01' breaks"),
        (
            changed(weekdays(100), 60),
            r"line 62: the time '2020-03-26' breaks .*calendar.* \(B\); 2020-03-25 is expected",
        ),
        (
            changed(months(100), 2),
            r"line 4: the time '1700-04-01' breaks the spacing of the first two rows; .*even steps or",
        ),
        (changed(months(100), 10), r"line 12: the time '1700-12-01' breaks .* \(MS\); 1700-11-01 is expected"),
        (changed(weekdays(100), 10), r"line 12: the time '2020-01-16' breaks .* \(B\); 2020-01-15 is expected"),
        (
            changed(ends_of_months(60), 13, "2020-02-28"),
            r"line 15: the time '2020-02-28' breaks .* \(ME\); 2020-02-29 is expected",
        ),
        (
            [f"{day} 00:00+01:00" for day in weekdays(60)],
            r"even steps or .*, without gaps; times with a zone .*: leave the zone out$",
        ),
        (months(60)[::-1], r"line 3: the time '1704-11-01' goes back; sort the rows by time, the oldest first"),
        (weekdays(60)[::-1], r"line 3: .* goes back; sort the rows by time"),
        (
            ["2020-01-01", "2020-01-15", "2020-02-01", "2020-02-15"],
            r"line 4: .*even steps or calendar steps: business days",
        ),
    ],
)
def test_a_gap_in_calendar_steps_is_refused_with_its_line(tmp_path, times, message):
    with pytest.raises(DataError, match=message) as caught:
        read_series_csv(written(tmp_path, times))
    assert "\n" not in str(caught.value)


def test_published_files_count_their_rows_whatever_the_calendar(tmp_path):
    table = read_series_csv(written(tmp_path, months(24)), evenly=False)
    assert table.uneven == 10  # two Februaries, and eight months of 30 days, after a first one of 31
    assert table.frequency == ""


@pytest.mark.parametrize(
    ("frequency", "season"),
    [
        ("MS", 12),
        ("ME", 12),
        ("BME", 12),
        ("WOM-3FRI", 12),
        ("2MS", 6),
        ("QS", 4),
        ("QE", 4),
        ("BQE", 4),
        ("B", 5),
        ("YS", None),
    ],
)
def test_the_info_names_the_usual_season_of_calendar_steps(tmp_path, frequency, season):
    path = write_csv(tmp_path / "mine.csv", power(200)[:, :2], ("a", "b"), "1700-03-01", frequency)
    notes = " ".join(OwnSeries(OwnSeriesOptions(horizon=8, track="fixed-96"), path).info().notes)
    assert (f"--set data.season={season} gives MASE" in notes) == (season is not None)
    assert ("season" in notes) == (season is not None)


@pytest.mark.filterwarnings("ignore:Using `json`-module for json-handling:UserWarning")
@pytest.mark.parametrize(
    ("frequency", "period"),
    [("MS", "M"), ("2ME", "2M"), ("QS", "Q"), ("BYE", "Y"), ("WOM-3FRI", "M"), ("15min", "15min")],
)
def test_gluonts_gets_the_periods_of_calendar_steps(tmp_path, frequency, period):
    path = write_csv(tmp_path / "mine.csv", power(200)[:, :2], ("a", "b"), "1960-03-01", frequency)
    task = OwnSeries(OwnSeriesOptions(horizon=8, track="fixed-96", patch=8), path)
    task.load()
    assert period_of(task.frequency) == period
    instance, label = next(iter(as_gluonts(task, "test")))
    assert instance["target"].shape == (2, 96)
    assert instance["start"] + 96 == label["start"]
    assert label["start"] == pd.Period(task.first_time, freq=period) + task.borders[1]

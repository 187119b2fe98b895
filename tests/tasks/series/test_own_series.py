"""`csv`: a user's own series with the same protocol."""

from __future__ import annotations

import numpy as np
import pytest

from tasks.base import DataError
from tasks.series.own_series import OwnSeries, OwnSeriesOptions
from tests.tasks.series.series_files import power, write_csv

OPTIONS = OwnSeriesOptions(horizon=24, track="fixed-96")


@pytest.mark.parametrize(("frequency", "expected"), [("h", "h"), ("15min", "15min"), ("D", "D")])
def test_a_file_or_a_folder_with_one_is_a_task(tmp_path, frequency, expected):
    path = write_csv(tmp_path / "mine.csv", power(1_000)[:, :3], ("a", "b", "c"), "2021-01-01", frequency)
    for place in (path, tmp_path):
        task = OwnSeries(OPTIONS, place)
        assert task.spec.channels == 3
        info = task.info()
        assert dict(info.splits) == {"train": 700, "valid": 100, "test": 200}
        assert info.extra["frequency"] == expected
        assert next(task.train_batches(0, 4)).inputs.shape == (4, 96, 3)
        assert task.n_examples("test") == 200 - 23


def test_without_a_file_the_spec_is_known_and_the_info_describes_the_file():
    assert OwnSeries().spec.channels == 1
    info = OwnSeries().info()
    assert info.fingerprint == ""
    notes = " ".join(info.notes)
    for needed in (
        "separated by commas",
        "times such as 2021-01-31 13:00:00",
        "without gaps",
        "even steps or calendar steps",
        "numbers",
    ):
        assert needed in notes
    assert "split 70/10/20 %" in notes
    assert "--set data.season=N, of fewer steps than the training part" in notes
    with pytest.raises(DataError, match=r"pass --data-dir FILE.csv"):
        OwnSeries().load()


def test_a_folder_with_none_or_several_files_is_refused(tmp_path):
    with pytest.raises(DataError, match="holds 0 CSV files"):
        OwnSeries(None, tmp_path).load()
    for name in ("a.csv", "b.csv"):
        write_csv(tmp_path / name, power(10), tuple("abcdefg"), "2021-01-01", "h")
    with pytest.raises(DataError, match=r"holds 2 CSV files \(a.csv, b.csv\); .*--data-dir"):
        OwnSeries(None, tmp_path).load()


def test_times_that_leave_a_gap_are_refused(tmp_path):
    path = write_csv(tmp_path / "mine.csv", power(1_000), tuple("abcdefg"), "2021-01-01", "h")
    lines = path.read_text().splitlines()
    del lines[500]
    path.write_text("\n".join(lines))
    with pytest.raises(DataError, match=r"line 501: the time .* breaks the spacing"):
        OwnSeries(OPTIONS, path).load()


def test_the_fingerprint_depends_on_values_and_names_and_not_on_the_format(tmp_path):
    values = power(1_000)
    path = write_csv(tmp_path / "a.csv", values, tuple("abcdefg"), "2021-01-01", "h")
    crlf = tmp_path / "b.csv"
    crlf.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    other = values.copy()
    other[999, 6] += 1
    changed = write_csv(tmp_path / "c.csv", other, tuple("abcdefg"), "2021-01-01", "h")
    renamed = write_csv(tmp_path / "d.csv", values, tuple("abcdefh"), "2021-01-01", "h")
    prints = [OwnSeries(OPTIONS, place).fingerprint for place in (path, crlf, changed, renamed)]
    assert prints[0] == prints[1]
    assert len(set(prints)) == 3


def test_fast_reading_gives_the_numbers_of_the_text_to_the_last_digit(tmp_path):
    path = write_csv(tmp_path / "a.csv", power(1_000), tuple("abcdefg"), "2021-01-01", "h")
    task = OwnSeries(OPTIONS, path)
    text = np.array([[float(cell) for cell in line.split(",")[1:]] for line in path.read_text().splitlines()[1:]])
    assert np.array_equal(task._read().values, text)


def in_berlin(n: int) -> list[str]:
    """Hourly times over the end of summer time, with the offset of each."""
    import pandas as pd

    return [time.isoformat() for time in pd.date_range("2021-10-01", periods=n, freq="h", tz="Europe/Berlin")]


@pytest.mark.parametrize("zone", ["of winter", "of summer and winter"])
def test_times_with_a_zone_are_evenly_spaced_when_they_are_in_utc(tmp_path, zone):
    path = write_csv(tmp_path / "mine.csv", power(1_000)[:, :2], ("a", "b"), "2021-01-01", "h")
    plain = OwnSeries(OPTIONS, path)
    plain.load()
    header, *rows = path.read_text().splitlines()
    times = in_berlin(1_000) if zone == "of summer and winter" else [f"{row.partition(',')[0]}+01:00" for row in rows]
    zoned = [header, *(f"{time},{row.partition(',')[2]}" for time, row in zip(times, rows, strict=True))]
    path.write_text("\n".join(zoned))
    task = OwnSeries(OPTIONS, path)
    task.load()
    assert task.fingerprint == plain.fingerprint
    assert task.first_time == ("2021-09-30T22:00:00" if zone == "of summer and winter" else "2020-12-31T23:00:00")


def test_a_file_without_names_is_refused_and_loses_no_row(tmp_path):
    path = write_csv(tmp_path / "mine.csv", power(1_000), tuple("abcdefg"), "2021-01-01", "h")
    path.write_text("\n".join(path.read_text().splitlines()[1:]))
    with pytest.raises(DataError, match=r"its first line begins with the time '2021-01-01.*'; .*line of names"):
        OwnSeries(OPTIONS, path).load()


@pytest.mark.parametrize("frequency", ["D", "h"])
def test_times_that_begin_with_the_day_are_refused_with_a_format_that_works(tmp_path, frequency):
    path = write_csv(tmp_path / "mine.csv", power(1_000), tuple("abcdefg"), "2021-01-01", frequency)
    header, *rows = path.read_text().splitlines()
    times = [row.partition(",")[0] for row in rows]
    dates = [f"{time[8:10]}/{time[5:7]}/{time[:4]}{time[10:]}" for time in times]
    path.write_text(
        "\n".join([header, *(f"{date},{row.partition(',')[2]}" for date, row in zip(dates, rows, strict=True))])
    )
    with pytest.raises(DataError, match="YYYY-MM-DD"):
        OwnSeries(OPTIONS, path).load()


def test_a_given_season_adds_mase_and_the_info_names_the_usual_one(tmp_path):
    path = write_csv(tmp_path / "mine.csv", power(1_000), tuple("abcdefg"), "2021-01-01", "h")
    info = OwnSeries(OPTIONS, path).info()
    assert any("--set data.season=24" in note for note in info.notes)
    with pytest.raises(DataError, match="a season of 700 steps does not fit into the 700 of the training part"):
        OwnSeries(OwnSeriesOptions(horizon=24, track="fixed-96", season=700), path).load()
    chosen = OwnSeriesOptions(horizon=24, track="fixed-96", season=24, head="quantile")
    task = OwnSeries(chosen, path)
    assert not any("season" in note for note in task.info().notes)
    assert [metric.name for metric in task.metrics][:2] == ["crps", "mase"]
    assert task.seasonal_error is not None
    expected = np.abs(task.series[24:700].numpy() - task.series[: 700 - 24].numpy()).mean(0)
    assert np.allclose(task.seasonal_error.numpy(), expected, rtol=1e-6)


def season_notes(tmp_path, frequency, rows=1_000, **options):
    path = write_csv(tmp_path / "mine.csv", power(rows)[:, :2], ("a", "b"), "2021-01-01", frequency)
    chosen = OwnSeriesOptions(**{"horizon": 24, "track": "fixed-96", **options})
    return [note for note in OwnSeries(chosen, path).info().notes if "season" in note]


def test_the_info_of_daily_data_names_the_week_as_the_season(tmp_path):
    [note] = season_notes(tmp_path, "D")
    assert "daily series usually repeat weekly: --set data.season=7 gives MASE" in note
    assert "--set mixer.season=7 too" in note


@pytest.mark.parametrize("frequency", ["7D", "2D", "14D", "7h"])
def test_a_spacing_without_a_usual_season_gets_no_advice_and_no_log_line(tmp_path, frequency, caplog):
    assert season_notes(tmp_path, frequency) == []
    assert not caplog.records


@pytest.mark.parametrize(
    ("frequency", "usual", "rows", "track", "fits", "readable"),
    [
        ("s", "3,600", 3_000, "fixed-336", False, False),
        ("s", "3600", 6_000, "fixed-336", True, False),
        ("min", "1,440", 2_000, "fixed-336", False, False),
        ("min", "1440", 3_000, "fixed-336", True, False),
        ("15min", "96", 1_000, "fixed-96", True, True),
        ("10min", "144", 1_000, "fixed-96", True, False),
        ("10min", "144", 1_000, "fixed-336", True, True),
    ],
)
def test_a_season_is_suggested_only_if_it_can_be_used(tmp_path, frequency, usual, rows, track, fits, readable):
    [note] = season_notes(tmp_path, frequency, rows, track=track)
    assert (f"--set data.season={usual} gives MASE" in note) == fits
    assert (f"the usual one, {usual} steps, does not fit into the {rows * 7 // 10:,} of the training part" in note) == (
        not fits
    )
    assert (f"--set mixer.season={usual} too" in note) == readable
    if fits:
        season = int(usual)
        assert season_notes(tmp_path, frequency, rows, track=track, season=season) == []  # and it loads


def test_a_season_one_step_too_long_for_the_training_part_is_not_suggested(tmp_path):
    for rows, fits in ((2_059, True), (2_058, False)):  # 1,441 and 1,440 steps of training
        [note] = season_notes(tmp_path, "min", rows)
        assert ("--set data.season=1440" in note) == fits

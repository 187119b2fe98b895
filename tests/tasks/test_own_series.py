"""`csv`: a user's own series by the same protocol."""

from __future__ import annotations

import numpy as np
import pytest

from tasks.base import DataError
from tasks.forecast_options import SearchedOptions
from tasks.own_series import OwnSeries
from tests.tasks.series_files import power, write_csv

OPTIONS = SearchedOptions(horizon=24, track="fixed-96")


@pytest.mark.parametrize(("frequency", "told"), [("h", "h"), ("15min", "15min"), ("D", "D")])
def test_a_file_or_a_folder_with_one_is_a_task(tmp_path, frequency, told):
    path = write_csv(tmp_path / "mine.csv", power(1_000)[:, :3], ("a", "b", "c"), "2021-01-01", frequency)
    for place in (path, tmp_path):
        task = OwnSeries(OPTIONS, place)
        assert task.spec.channels == 3
        info = task.info()
        assert dict(info.splits) == {"train": 700, "valid": 100, "test": 200}
        assert info.extra["frequency"] == told
        assert next(task.train_batches(0, 4)).inputs.shape == (4, 96, 3)
        assert task.n_examples("test") == 200 - 23


def test_the_budget_is_counted_without_a_file_and_the_data_then_asked_for():
    assert OwnSeries().spec.channels == 1
    assert OwnSeries().info().fingerprint == ""
    with pytest.raises(DataError, match=r"pass --data-dir FILE.csv"):
        OwnSeries().load()


def test_a_folder_with_none_or_several_files_asks_for_one(tmp_path):
    with pytest.raises(DataError, match="holds 0 CSV files"):
        OwnSeries(None, tmp_path).load()
    for name in ("a.csv", "b.csv"):
        write_csv(tmp_path / name, power(10), tuple("abcdefg"), "2021-01-01", "h")
    with pytest.raises(DataError, match=r"holds 2 CSV files \(a.csv, b.csv\); name the one"):
        OwnSeries(None, tmp_path).load()


def test_times_that_leave_a_gap_are_refused(tmp_path):
    path = write_csv(tmp_path / "mine.csv", power(1_000), tuple("abcdefg"), "2021-01-01", "h")
    lines = path.read_text().splitlines()
    del lines[500]
    path.write_text("\n".join(lines))
    with pytest.raises(DataError, match=r"line 501: the time .* breaks the spacing"):
        OwnSeries(OPTIONS, path).load()


def test_the_fingerprint_follows_the_values_and_names_and_not_the_files_form(tmp_path):
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


def test_the_fast_reading_gives_what_the_text_says_to_the_last_digit(tmp_path):
    path = write_csv(tmp_path / "a.csv", power(1_000), tuple("abcdefg"), "2021-01-01", "h")
    task = OwnSeries(OPTIONS, path)
    text = np.array([[float(cell) for cell in line.split(",")[1:]] for line in path.read_text().splitlines()[1:]])
    assert np.array_equal(task._read().values, text)

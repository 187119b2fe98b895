"""CSV files as people have them: which cells are no numbers, which columns are read, and the layouts of times."""

from __future__ import annotations

import pandas as pd
import pytest

from suite.config.run_config import RunConfig
from suite.models.resolve import resolve
from tasks.base import DataError
from tasks.series.own_series import OwnSeries, OwnSeriesOptions
from tests.tasks.series.series_files import power

ROWS = 260


def hours(freq="h", start="2021-01-01", form="%Y-%m-%d %H:%M:%S", zone=None):
    return [f"{time:{form}}" for time in pd.date_range(start, periods=ROWS, freq=freq, tz=zone)]


def table(times=None, **columns):
    """Two series `a` and `b` of real values, changed or joined by other columns."""
    values = power(ROWS)
    held = {"date": times or hours(), "a": [f"{v:.3f}" for v in values[:, 0]], "b": [f"{v:.2f}" for v in values[:, 2]]}
    return pd.DataFrame({**held, **columns})


def task(tmp_path, frame, **options):
    path = tmp_path / "mine.csv"
    path.write_text(frame) if isinstance(frame, str) else frame.to_csv(path, index=False)
    made = OwnSeries(OwnSeriesOptions(horizon=8, track="fixed-96", **options), path)
    channels = made.channels  # known before the file is read as a whole
    made.load()
    assert made.series.shape == (ROWS, channels)
    return made


def refusal(tmp_path, frame, **options):
    with pytest.raises(DataError) as caught:
        task(tmp_path, frame, **options)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value).replace(str(tmp_path), "")) < 600
    assert "garbled" not in str(caught.value)
    return str(caught.value)


def spoiled(rows, cell):
    cells = list(table()["b"])
    for row in rows:
        cells[row] = cell
    return table(b=cells)


@pytest.mark.parametrize("cell", ["", "NaN", "?", "NA", "null"])
@pytest.mark.parametrize(
    ("rows", "found"),
    [
        ((40,), r"1 of 260 cells of the column is missing (line 42);"),
        ((40, 50, 60, 70), r"4 of 260 cells of the column are missing (lines 42, 52, 62, …);"),
        ((259,), r"is missing (line 261); the file may be truncated;"),
    ],
)
def test_missing_cells_are_counted_with_their_column_lines_and_a_way_out(tmp_path, cell, rows, found):
    message = refusal(tmp_path, spoiled(rows, cell))
    assert f"line {rows[0] + 2}, column 'b'" in message
    assert found in message
    assert "fill them" in message
    assert "--set columns=a reads only the others" in message


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        ([f"{v / 7:.1f}%" for v in range(ROWS)], "all are written with a percent sign; remove the percent signs"),
        (["KBOS"] * ROWS, "column 'c': 'KBOS' is not a finite number; no cell of the column is a number: all are text"),
        ([f"{v},25" for v in range(ROWS)], "written with a comma; --set decimal=comma reads a decimal comma, --set th"),
        ([""] * ROWS, "the column is empty; a comma at the end of the lines makes such a column; remove the column"),
        (["1"] * 258 + ["9" * 99_999 + "x"] * 2, "(lines 260, 261)"),
    ],
)
def test_a_column_that_is_not_of_numbers_is_named_with_its_kind_and_can_be_left_out(tmp_path, column, expected):
    frame = table(c=column)
    message = refusal(tmp_path, frame)
    assert expected in message
    assert "--set columns=a,b reads only the others" in message
    left = task(tmp_path, frame, columns="a,b")
    assert left.columns == ("a", "b")
    assert left.fingerprint == task(tmp_path, table()).fingerprint


def test_a_comma_at_the_end_of_every_line_is_named(tmp_path):
    text = table().to_csv(index=False).replace("\n", ",\n")
    message = refusal(tmp_path, text)
    assert "line 2, column 4, which has no name: an empty cell is not a finite number; the column is empty" in message
    assert "a comma at the end of the lines makes such a column" in message
    assert task(tmp_path, text, columns="a,b").columns == ("a", "b")


def test_columns_are_read_in_the_chosen_order_and_must_exist(tmp_path):
    assert task(tmp_path, table(), columns="b,a").columns == ("b", "a")
    assert task(tmp_path, table(), columns=["b"]).mean == pytest.approx([table()["b"].astype(float)[:182].mean()])
    assert "no series is named 'q' (--set columns); it has a, b" in refusal(tmp_path, table(), columns="q")
    assert "no series is named 'date'" in refusal(tmp_path, table(), columns="date")


@pytest.mark.parametrize(
    ("written", "options"),
    [
        (lambda v: f"{v:,.3f}".replace(",", " ").replace(".", ","), {"decimal": "comma", "thousands": "space"}),
        (lambda v: f"{v:,.3f}".translate({44: 46, 46: 44}), {"decimal": "comma", "thousands": "point"}),
        (lambda v: f"{v:.3f}".replace(".", ","), {"decimal": "comma"}),
        (lambda v: f"{v:,.3f}", {"thousands": "comma"}),
        (lambda v: f"{v:.3f}", {}),
    ],
)
@pytest.mark.parametrize("separator", ["comma", "semicolon", "tab"])
def test_decimal_commas_thousands_and_separators_give_the_same_numbers(tmp_path, written, options, separator):
    values = 1000 * power(ROWS)[:, 0]
    sign = {"comma": ",", "semicolon": ";", "tab": "\t"}[separator]
    text = table(a=[written(v) for v in values], b=[written(-v) for v in values]).to_csv(index=False, sep=sign)
    read = task(tmp_path, text, separator=separator, **options)
    assert read.mean == pytest.approx([values[:182].round(3).mean(), -values[:182].round(3).mean()], rel=1e-12)


def test_another_separator_is_named_with_the_option_that_reads_it(tmp_path):
    assert "--set separator=semicolon" in refusal(tmp_path, table().to_csv(index=False, sep=";"))
    assert "--set separator=tab" in refusal(tmp_path, table().to_csv(index=False, sep="\t"))


def test_signs_that_contradict_each_other_are_refused():
    with pytest.raises(ValueError, match="decimal and thousands are both comma"):
        OwnSeriesOptions(decimal="comma", thousands="comma")
    with pytest.raises(ValueError, match="names a series twice"):
        OwnSeriesOptions(columns="a,a")


def config(*sets) -> RunConfig:
    return resolve(task="csv", mixer="softmax", scale="board", sets=sets)


def test_options_of_the_file_change_identities_only_where_they_are_set():
    plain = config()
    new = {"columns", "decimal", "thousands", "separator", "dates", "constant"}
    assert not new & set(plain.recorded()["data"])
    sets = ("columns=a", "decimal=comma", "thousands=comma", "separator=tab", "dates=day-first", "constant=keep")
    assert len({plain.identity, *(config(one).identity for one in sets)}) == 7
    assert config("columns=a, b").identity == config("columns=a,b").identity


@pytest.mark.parametrize("form", ["%d/%m/%Y", "%m/%d/%Y", "%Y-%m-%d"])
def test_a_date_and_a_time_of_day_in_two_columns_are_one_time(tmp_path, form):
    frame = table(hours(form=form))
    frame.insert(1, "Time", hours(form="%H:%M:%S"))
    read = task(tmp_path, frame, dates="day-first" if form == "%d/%m/%Y" else "month-first")
    assert (read.frequency, read.first_time, read.columns) == ("h", "2021-01-01T00:00:00", ("a", "b"))
    assert read.fingerprint == task(tmp_path, table()).fingerprint


@pytest.mark.parametrize("first", [0, 1])
@pytest.mark.parametrize("name", ["hour", "Hour", "HR"])
def test_a_date_and_an_hour_in_two_columns_are_one_time(tmp_path, name, first):
    frame = table(hours(form="%Y-%m-%d"))
    frame.insert(1, name, [str(row % 24 + first) for row in range(ROWS)])
    read = task(tmp_path, frame)
    assert (read.frequency, read.first_time, read.columns) == ("h", "2021-01-01T00:00:00", ("a", "b"))
    assert read.fingerprint == task(tmp_path, table()).fingerprint
    frame.drop(index=100, inplace=True)
    assert "2021-01-05 04:00:00 is due there" in refusal(tmp_path, frame)


@pytest.mark.parametrize("start", [23, 12])
def test_hours_are_recognised_whatever_the_first_one_is(tmp_path, start):
    times = pd.date_range(f"2021-01-01 {start}:00", periods=ROWS, freq="h")
    frame = table([f"{time:%Y-%m-%d}" for time in times])
    frame.insert(1, "hour", [str(time.hour) for time in times])
    read = task(tmp_path, frame)
    assert (read.frequency, read.first_time) == ("h", f"2021-01-01T{start}:00:00")


def test_a_series_called_hour_stays_one_with_a_row_per_date(tmp_path):
    frame = table([f"{day:%Y-%m-%d}" for day in pd.date_range("2021-01-01", periods=ROWS)])
    frame.insert(1, "hour", [str(row % 24) for row in range(ROWS)])
    assert (task(tmp_path, frame).frequency, task(tmp_path, frame).columns) == ("D", ("hour", "a", "b"))


def test_unix_milliseconds_are_times(tmp_path):
    read = task(tmp_path, table([str(1_609_459_200_000 + 900_000 * row) for row in range(ROWS)]))
    assert (read.frequency, read.first_time) == ("15min", "2021-01-01T00:00:00")


def test_unix_seconds_are_times(tmp_path):
    seconds = [str(1_609_459_200 + 3600 * row) for row in range(ROWS)]
    read = task(tmp_path, table(seconds))
    assert (read.frequency, read.first_time) == ("h", "2021-01-01T00:00:00")
    gap = seconds[:100] + [str(int(second) + 3600) for second in seconds[100:]]
    assert "line 102: the time '1609822800' breaks the spacing; 2021-01-05 04:00:00 is due there" in refusal(
        tmp_path, table(gap)
    )


def long(frame=None):
    wide = table() if frame is None else frame
    return wide.melt("date", var_name="unique_id", value_name="y").rename(columns={"date": "ds"})


@pytest.mark.parametrize("order", [["unique_id", "ds", "y"], ["ds", "unique_id", "y"], ["y", "ds", "unique_id"]])
@pytest.mark.parametrize("rows", ["by series", "by time", "shuffled"])
def test_the_long_format_gives_the_same_series(tmp_path, order, rows):
    frame = long()[order]
    frame = {
        "by series": frame,
        "by time": frame.sort_values(["ds", "unique_id"]),
        "shuffled": frame.sample(frac=1.0, random_state=0),
    }[rows]
    read = task(tmp_path, frame)
    assert (read.frequency, sorted(read.columns)) == ("h", ["a", "b"])
    assert task(tmp_path, frame, columns="a,b").fingerprint == task(tmp_path, table()).fingerprint
    assert task(tmp_path, frame, columns="b").columns == ("b",)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda f: f.drop(index=[100]), "series 'a' has no value at 2021-01-05 04:00:00, and at 1 of 260 times in all"),
        (lambda f: f.drop(index=[100, 360]), "2021-01-05 04:00:00 is due there, 1 row is missing; fill the gap"),
        (lambda f: pd.concat([f, f[:1]]), "line 522: series 'a' has a second value at 2021-01-01 00:00:00; remove one"),
        (lambda f: f.assign(y=["x" if i == 300 else y for i, y in enumerate(f["y"])]), "line 302, column 'y': 'x'"),
        (lambda f: f.assign(price=1), "which has no other columns; remove price"),
    ],
)
def test_a_fault_in_the_long_format_is_named(tmp_path, change, expected):
    assert expected in refusal(tmp_path, change(long()))

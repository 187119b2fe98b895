"""Reading series from CSV: truncated and garbled files are refused, with the line at fault."""

from __future__ import annotations

import gzip

import pytest

from tasks.base import DataError
from tasks.series.csv_table import read_series_csv

GOOD = "date,a,b\n2020-01-01 00:00:00,1,2\n2020-01-01 01:00:00,3,4.5\n2020-01-01 02:00:00,5,-6e1\n"


def read(tmp_path, content):
    path = tmp_path / "series.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_series_csv(path)


@pytest.mark.parametrize("text", [GOOD, GOOD.replace("\n", "\r\n"), GOOD.rstrip("\n")])
def test_a_whole_file_gives_its_numbers_names_and_times(tmp_path, text):
    table = read(tmp_path, text)
    assert table.values.tolist() == [[1.0, 2.0], [3.0, 4.5], [5.0, -60.0]]
    assert table.columns == ("a", "b")
    assert table.times[0] == "2020-01-01T00:00:00"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (GOOD[: GOOD.rindex("-6e1")], r"line 4, column 'b': an empty cell is not a finite number"),
        (GOOD[: GOOD.rindex(",-6e1")], r"line 4, column 'b': an empty cell"),
        (GOOD[: GOOD.rindex(" 02:00") + 4], r"line 4"),
        (GOOD.replace(",4.5", ""), r"line 3, column 'b'"),
        (GOOD.replace("3,4.5", "3,4.5,7"), r"line 3 has 4 cells, the line of names has 3; correct it"),
        (GOOD.replace("3,4.5", "3,oops"), r"line 3, column 'b': 'oops' is not a finite number"),
        (GOOD.replace("3,4.5", "3,nan"), r"line 3, column 'b': 'nan'"),
        (GOOD.replace("3,4.5", "inf,4.5"), r"line 3, column 'a': 'inf'"),
        (GOOD.replace("3,4.5", '"3,4.5'), r"not a readable CSV file: a quote in line 3 is never closed"),
        (GOOD.replace(" 01:00", " 00:00"), r"line 3: the time '2020-01-01 00:00:00' breaks the spacing"),
        (GOOD.replace(" 02:00", " 03:00"), r"line 4: the time '2020-01-01 03:00:00' breaks the spacing"),
        (GOOD.replace("2020-01-01 01:00:00", "yesterday-ish"), r"line 3: 'yesterday-ish' is not a time"),
        (
            GOOD.replace(",1,2", ",1,2,9").replace("4.5", "4.5,9").replace("-6e1", "-6e1,9"),
            r"line 2 has 4 cells, the line of names has 3",
        ),
        ("", r"not a readable CSV file: it is empty"),
        ("date,a\n", r"0 rows and 2 columns"),
        ("date\n2020-01-01\n2020-01-02\n", r"its first line names 1 column; .*commas"),
        (
            GOOD.replace(",", ";"),
            r"its first line names 1 column and holds semicolons: --set separator=semicolon .*commas",
        ),
        (GOOD.replace(",", ";").replace(".", ","), r"its first line names 1 column and holds semicolons"),
        (GOOD.replace(",", "\t"), r"its first line names 1 column and holds tabs"),
        (
            GOOD.replace(",", ";").replace("a;b", "a, outside;b"),
            r"separated by semicolons, not commas: --set separator=semi",
        ),
        (GOOD.replace(",", ";").replace("a;b", "a, outside;b").replace(".", ","), r"semicolons, .*--set decimal=comma"),
        (
            GOOD.replace(",", "\t").replace("a\tb", "a, outside\tb"),
            r"separated by tabs, not commas: --set separator=tab",
        ),
        (GOOD.replace("date,a,b", "date,a,a"), r"two columns have the name 'a'"),
        (gzip.compress(GOOD.encode(), mtime=0), r"it is a gzip file, not text; decompress it"),
        (b"\x00\x01\xff\xfe" * 50, r"series.csv"),
    ],
)
def test_a_damaged_file_is_refused_in_one_line_that_names_it(tmp_path, content, message):
    with pytest.raises(DataError, match=message) as caught:
        read(tmp_path, content)
    assert str(tmp_path / "series.csv") in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file_has_another_error_than_a_folder_or_a_damaged_file(tmp_path):
    with pytest.raises(DataError, match="does not exist"):
        read_series_csv(tmp_path / "none.csv")
    with pytest.raises(DataError, match="not a readable CSV file"):
        read_series_csv(tmp_path)


@pytest.mark.parametrize("first", ["0", "1", "7", "44197", "1609459200000", "1609459200.5", "-3"])
def test_a_first_column_of_numbers_is_refused_with_an_example_of_a_time(tmp_path, first):
    text = f"t,a\n{first},1\n{float(first) + 1:g},2\n"
    expected = rf"line 2: '{first}' is not a time; .* 2021-01-31 13:00:00$"
    with pytest.raises(DataError, match=expected):
        read(tmp_path, text)


def test_an_unreadable_time_gets_advice_on_the_order_of_days_only_if_it_may_help(tmp_path):
    with pytest.raises(
        DataError, match=r"line 3: 'later' is not a time like those before it; write all times in one format"
    ):
        read(tmp_path, GOOD.replace("2020-01-01 01:00:00", "later"))
    with pytest.raises(DataError, match=r"line 3: '13/01/2020' is not a time like those before it; .*YYYY-MM-DD"):
        read(tmp_path, "date,a\n12/01/2020,1\n13/01/2020,2\n")


@pytest.mark.parametrize(("cell", "shown"), [("", "an empty cell"), ("NaT", "'NaT'"), ("nan", "'nan'")])
def test_a_missing_time_is_not_taken_for_a_year_out_of_range(tmp_path, cell, shown):
    with pytest.raises(
        DataError, match=rf"line 3: {shown} is not a time like those before it; write all times in one format"
    ):
        read(tmp_path, GOOD.replace("2020-01-01 01:00:00", cell))


@pytest.mark.parametrize("year", ["1500", "1677", "2263", "2500"])
@pytest.mark.parametrize("line", [2, 3])
def test_years_that_cannot_be_read_are_named_in_one_line(tmp_path, year, line):
    rows = ["2000-01-01,1", "2000-01-02,2"]
    rows[line - 2] = f"{year}-01-01,1"
    with pytest.raises(DataError, match=rf"line {line}: '{year}-01-01' .* 1678 to 2261"):
        read(tmp_path, "\n".join(["date,a", *rows]))


@pytest.mark.parametrize("year", ["1678", "2261"])
def test_the_first_and_the_last_year_are_read(tmp_path, year):
    table = read(tmp_path, f"date,a\n{year}-01-01,1\n{year}-01-02,2\n{year}-01-03,2\n")
    assert (table.times[0], table.frequency) == (f"{year}-01-01T00:00:00", "D")

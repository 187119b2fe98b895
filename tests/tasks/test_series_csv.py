"""Reading series from CSV: what is cut off or garbled is refused, with the line at fault."""

from __future__ import annotations

import gzip

import pytest

from tasks.base import DataError
from tasks.series_csv import read_series_csv

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
        (GOOD.replace("3,4.5", "3,4.5,7"), r"Expected 3 fields in line 3, saw 4"),
        (GOOD.replace("3,4.5", "3,oops"), r"line 3, column 'b': 'oops' is not a finite number"),
        (GOOD.replace("3,4.5", "3,nan"), r"line 3, column 'b': 'nan'"),
        (GOOD.replace("3,4.5", "inf,4.5"), r"line 3, column 'a': 'inf'"),
        (GOOD.replace("3,4.5", '"3,4.5'), r"not a readable CSV file: .*EOF inside string"),
        (GOOD.replace(" 01:00", " 00:00"), r"line 3: the time '2020-01-01 00:00:00' breaks the spacing"),
        (GOOD.replace(" 02:00", " 03:00"), r"line 4: the time '2020-01-01 03:00:00' breaks the spacing"),
        (GOOD.replace("2020-01-01 01:00:00", "yesterday-ish"), r"line 3: 'yesterday-ish' is not a time"),
        (GOOD.replace(",1,2", ",1,2,9").replace("4.5", "4.5,9").replace("-6e1", "-6e1,9"), r"not a readable CSV file"),
        ("", r"not a readable CSV file: No columns"),
        ("date,a\n", r"0 rows and 2 columns"),
        ("date\n2020-01-01\n2020-01-02\n", r"2 rows and 1 columns"),
        (gzip.compress(GOOD.encode(), mtime=0), r"not a readable CSV file: .*utf-8"),
        (b"\x00\x01\xff\xfe" * 50, r"series.csv"),
    ],
)
def test_a_damaged_file_is_refused_in_one_line_that_names_it(tmp_path, content, message):
    with pytest.raises(DataError, match=message) as caught:
        read(tmp_path, content)
    assert str(tmp_path / "series.csv") in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file_or_a_folder_is_told_apart_from_a_damaged_one(tmp_path):
    with pytest.raises(DataError, match="does not exist"):
        read_series_csv(tmp_path / "none.csv")
    with pytest.raises(DataError, match="not a readable CSV file"):
        read_series_csv(tmp_path)

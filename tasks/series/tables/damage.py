"""Why a CSV file cannot be read as a table: its encoding, its separator, or a line with other cells than the first."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from pathlib import Path

from tasks.base import DataError
from tasks.series.tables.format import SIGNS, CsvFormat, Separator
from tasks.storage.compressed import opened
from tasks.storage.encodings import not_utf8, require_text

SEPARATORS: dict[Separator, str] = {"comma": "commas", "semicolon": "semicolons", "tab": "tabs"}
COMPARED = 5  # lines at the beginning of a file that show its separator


def unreadable(path: Path, form: CsvFormat, error: Exception) -> DataError:
    """The error about a file that pandas cannot parse.

    Args:
        path: The file.
        form: How it should be written.
        error: What pandas raised.

    Returns:
        One line with the cause and what to do.
    """
    if isinstance(error, UnicodeDecodeError):
        return not_utf8(path)
    if isinstance(error, OSError):
        reason = error.strerror or str(error).splitlines()[0]
        return DataError(f"{path} is not a readable CSV file: {reason.lower()}; fetch it again, or name another file")
    require_text(path)
    require_separator(path, form)
    try:
        cause = _first_fault(path, form)
    except (OSError, EOFError, ValueError, csv.Error):
        cause = ""
    cause = cause or str(error).strip().splitlines()[-1]
    return DataError(f"{path} is not a readable CSV file: {cause}; correct it, or fetch it again")


def require_separator(path: Path, form: CsvFormat) -> None:
    """Raises DataError if the first lines have equally many cells with another separator, and not with that of `form`.

    Args:
        path: The file, which is text in UTF-8.
        form: How it should be written.

    Raises:
        DataError: Another separator is used.
    """
    with _text(path) as stream:
        lines = [line for _, line in zip(range(COMPARED), stream, strict=False) if line.strip()]
    try:
        counts = {sign: {len(cells) for cells in csv.reader(lines, delimiter=SIGNS[sign])} for sign in SEPARATORS}
    except csv.Error:  # a huge cell, which reading the table reports
        return
    if len(counts[form.separator]) <= 1:
        return
    for sign, found in counts.items():
        if len(found) == 1 and found != {1}:
            comma = sign == "semicolon" and form.decimal == "point" and any("," in line for line in lines[1:])
            decimal = " (and --set decimal=comma its numbers)" if comma else ""
            raise DataError(
                f"{path}: its columns are separated by {SEPARATORS[sign]}, not {SEPARATORS[form.separator]}: --set "
                f"separator={sign} reads such files{decimal}"
            )


def _text(path: Path) -> io.TextIOWrapper:
    with opened(path) as stream:
        return io.TextIOWrapper(io.BytesIO(stream.read(2**20)), "utf-8", "replace", newline="")


def _first_fault(path: Path, form: CsvFormat) -> str:
    """The first line that has more cells than the first, or a quote that is never closed; empty if there is none."""
    expected, before = 0, 0
    with opened(path) as stream:
        text = io.TextIOWrapper(stream, "utf-8", newline="")
        reader = csv.reader(text, delimiter=SIGNS[form.separator], strict=True)
        for cells in _rows(reader):
            if cells is None:
                return f"a quote in line {before + 1} is never closed"
            if not expected:
                expected = len(cells)
            if len(cells) > expected:
                return f"line {before + 1} has {len(cells):,} cells, the line of names has {expected:,}"
            before = reader.line_num
    return "" if expected else "it is empty"


def _rows(reader: Iterator[list[str]]) -> Iterator[list[str] | None]:
    """The rows that are not empty; None for a quote that is never closed."""
    while True:
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            if "unexpected end of data" not in str(error):
                raise
            yield None
            return
        if row:
            yield row

"""Texts from JSON lines: one object per line, one field of which holds a document.

The file is read line by line rather than as a table: table columns have one type each, while the keys of such files
change from line to line and only one of them matters here.
"""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from tasks.base import DataError
from tasks.storage.user_files import reading
from tasks.text.documents import ROWS_PER_BLOCK, ReadState


def read_rows(file: Path, field: str, state: ReadState | None = None) -> Iterator[tuple[list[str], ReadState]]:
    """The texts of a file's rows, about `ROWS_PER_BLOCK` at a time, each list with the state after it.

    The state holds the byte offset of the next line and the number of lines read. A row whose field is missing or null
    is an empty text; blank lines are skipped. Raises DataError, which gives the line number.
    """
    offset, lines_read = (state["at"], state["line"]) if state else (0, 0)
    with reading(file), file.open("rb") as stream:
        stream.seek(offset)
        while lines := list(islice(stream, ROWS_PER_BLOCK)):
            rows = {n: _parse(line, file, n) for n, line in enumerate(lines, lines_read + 1) if line.strip()}
            if rows and not any(field in row for row in rows.values()):
                fields = ", ".join(dict.fromkeys(key for row in rows.values() for key in row)) or "none"
                where = f" from line {lines_read + 1} on" if lines_read else ""
                raise DataError(
                    f"{file} has no field {field!r}{where} (fields: {fields}); choose one: --set text_field=NAME"
                )
            offset += sum(map(len, lines))
            lines_read += len(lines)
            texts = [_text(row.get(field), field, file, n) for n, row in rows.items()]
            yield texts, {"at": offset, "line": lines_read}


def _parse(line: bytes, file: Path, number: int) -> dict[str, Any]:
    try:
        row = json.loads(line.removeprefix(codecs.BOM_UTF8 if number == 1 else b"").decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise DataError(
            f"{file} cannot be read: line {number} is not JSON: {error}; write one JSON object per line"
        ) from None
    if not isinstance(row, dict):
        found = type(row).__name__
        raise DataError(
            f"{file} cannot be read: line {number} is {found}, not a JSON object; write one JSON object per line"
        )
    return row


def _text(value: object, field: str, file: Path, number: int) -> str:
    if value is None or isinstance(value, str):
        return value or ""
    found = f"the field {field!r} holds {type(value).__name__} in line {number}, not text"
    raise DataError(f"{file}: {found}; correct that line, or choose another field: --set text_field=NAME")

"""Texts out of JSON lines: an object a line, one field of which holds a document.

Read line by line and not as a table, whose columns have one type each: files gain and lose keys on the way, and only
one of them counts.
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
from tasks.text.documents import ROWS, State


def read_rows(file: Path, field: str, state: State | None = None) -> Iterator[tuple[list[str], State]]:
    """The texts of a file's rows, about `ROWS` at a time, each with the state behind it: where the next line begins,
    and its number.

    A row without the field, or with null in it, is an empty text; empty lines are none. Raises DataError that names the
    line.
    """
    at, before = (state["at"], state["line"]) if state else (0, 0)
    with reading(file), file.open("rb") as stream:
        stream.seek(at)
        while lines := list(islice(stream, ROWS)):
            rows = {n: _parse(line, file, n) for n, line in enumerate(lines, before + 1) if line.strip()}
            if rows and not any(field in row for row in rows.values()):
                there = ", ".join(dict.fromkeys(key for row in rows.values() for key in row)) or "nothing"
                where = f" from line {before + 1} on" if before else ""
                raise DataError(
                    f"{file} has no field {field!r}{where} (there are: {there}); name it: --set text_field=NAME"
                )
            before += len(lines)
            yield (
                [_text(row.get(field), field, file, n) for n, row in rows.items()],
                {"at": stream.tell(), "line": before},
            )


def _parse(line: bytes, file: Path, number: int) -> dict[str, Any]:
    try:
        row = json.loads(line.removeprefix(codecs.BOM_UTF8 if number == 1 else b"").decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{file} cannot be read: line {number} is not JSON: {error}; write one object a line") from None
    if not isinstance(row, dict):
        raise DataError(
            f"{file} cannot be read: line {number} is not an object but {type(row).__name__}; write one object a line"
        )
    return row


def _text(value: object, field: str, file: Path, number: int) -> str:
    if value is None or isinstance(value, str):
        return value or ""
    found = f"the field {field!r} holds {type(value).__name__} in line {number}, text is needed"
    raise DataError(f"{file}: {found}; correct the line, or name another field: --set text_field=NAME")

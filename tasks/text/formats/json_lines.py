"""Texts from JSON: one object per line, or a list of objects (`.json`), one field of which holds a document. The file
may be compressed (`.gz`, `.zst`).

A file of lines is read line by line rather than as a table: table columns have one type each, while the keys of such
files change from line to line and only one of them matters here.
"""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

from tasks.base import DataError
from tasks.storage.compressed import opened
from tasks.storage.encodings import not_utf8, require_text
from tasks.storage.user_files import reading
from tasks.text.documents import ROWS_PER_BLOCK, ReadState
from tasks.text.formats.names import LISTS, ending_of

SKIPPED_BYTES = 2**20  # read at a time to reach a place of a compressed file
MAX_LIST_BYTES = 2 * 2**30  # of a list, which is parsed as a whole


def read_rows(file: Path, field: str, state: ReadState | None = None) -> Iterator[tuple[list[str], ReadState]]:
    """The texts of a file's rows, about `ROWS_PER_BLOCK` at a time, each list with the state after it.

    The state holds the byte offset of the next line, before compression, and the number of lines read; for a list the
    number of rows read. A row whose field is missing or null is an empty text; blank lines are skipped. Raises
    DataError, which gives the line number.
    """
    with reading(file):
        if state is None:
            require_text(file)
        if ending_of(file.name) in LISTS and _is_list(file):
            yield from _read_list(file, field, state)
            return
    offset, lines_read = (state["at"], state["line"]) if state else (0, 0)
    with reading(file), opened(file) as stream:
        _skip(stream, offset)
        while lines := list(islice(stream, ROWS_PER_BLOCK)):
            rows = {n: _parse(line, file, n) for n, line in enumerate(lines, lines_read + 1) if line.strip()}
            where = f" from line {lines_read + 1} on" if lines_read else ""
            _require_field(rows, field, file, where)
            offset += sum(map(len, lines))
            lines_read += len(lines)
            texts = [_text(row.get(field), field, file, f"line {n}") for n, row in rows.items()]
            yield texts, {"at": offset, "line": lines_read}


def _is_list(file: Path) -> bool:
    with opened(file) as stream:
        start = stream.read(SKIPPED_BYTES).removeprefix(codecs.BOM_UTF8).lstrip()
    return start.startswith(b"[")


def _read_list(file: Path, field: str, state: ReadState | None) -> Iterator[tuple[list[str], ReadState]]:
    """The texts of a list of objects, which is in memory as a whole."""
    with opened(file) as stream:
        content = stream.read(MAX_LIST_BYTES + 1)
    if len(content) > MAX_LIST_BYTES:
        raise DataError(
            f"{file} is a list of more than {MAX_LIST_BYTES / 2**30:.0f} GB, which does not fit into memory; write one "
            "object per line: jq -c '.[]'"
        )
    try:
        rows = json.loads(content.removeprefix(codecs.BOM_UTF8).decode("utf-8"))
    except UnicodeDecodeError:
        raise not_utf8(file) from None
    except (ValueError, RecursionError) as error:
        raise DataError(f"{file} cannot be read: it is not JSON: {error}; it may be truncated") from None
    wrong = next((n for n, row in enumerate(rows, 1) if not isinstance(row, dict)), None)
    if wrong is not None:
        kind = type(rows[wrong - 1]).__name__
        raise DataError(f"{file} cannot be read: element {wrong} of its list is {kind}, not a JSON object")
    for at in range(state["rows"] if state else 0, len(rows), ROWS_PER_BLOCK):
        part = dict(enumerate(rows[at : at + ROWS_PER_BLOCK], at + 1))
        _require_field(part, field, file, f" from element {at + 1} on" if at else "")
        texts = [_text(row.get(field), field, file, f"element {n}") for n, row in part.items()]
        yield texts, {"rows": at + len(part)}


def _skip(stream: BinaryIO, offset: int) -> None:
    if stream.seekable():
        stream.seek(offset)
        return
    while offset > 0 and (read := stream.read(min(offset, SKIPPED_BYTES))):
        offset -= len(read)


def _require_field(rows: Mapping[int, dict[str, Any]], field: str, file: Path, where: str) -> None:
    if rows and not any(field in row for row in rows.values()):
        fields = ", ".join(dict.fromkeys(key for row in rows.values() for key in row)) or "none"
        raise DataError(f"{file} has no field {field!r}{where} (fields: {fields}); choose one: --set text_field=NAME")


def _parse(line: bytes, file: Path, number: int) -> dict[str, Any]:
    try:
        row = json.loads(line.removeprefix(codecs.BOM_UTF8 if number == 1 else b"").decode("utf-8"))
    except UnicodeDecodeError:
        raise not_utf8(file) from None
    except (ValueError, RecursionError) as error:
        raise DataError(f"{file} cannot be read: line {number} is not JSON: {error}; {_advice(line, file)}") from None
    if not isinstance(row, dict):
        found = type(row).__name__
        raise DataError(f"{file} cannot be read: line {number} is {found}, not a JSON object; {_advice(line, file)}")
    return row


def _advice(line: bytes, file: Path) -> str:
    if line.lstrip().startswith(b"[") and ending_of(file.name) not in LISTS:
        return "write one JSON object per line, or name the file .json if it is a list of objects"
    return "write one JSON object per line"


def _text(value: object, field: str, file: Path, place: str) -> str:
    if value is None or isinstance(value, str):
        return value or ""
    found = f"the field {field!r} holds {type(value).__name__} in {place}, not text"
    raise DataError(f"{file}: {found}; correct it, or choose another field: --set text_field=NAME")

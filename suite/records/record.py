"""Reading and writing the record of a run: strict, hashed, checked against itself. Nothing in it is evaluated or
unpickled.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from suite.config.identity import canonical_json, digest
from suite.errors import first_line
from suite.records import strict_json
from suite.records.checks.crosscheck import faults
from suite.records.home import RECORD
from suite.records.schema import SCHEMA, Record
from tasks.storage.cache import write_atomically

NAME = RECORD
MAX_BYTES = 65_536
Check = Literal["ranges", "recount"]


class RecordError(Exception):
    """A record that is damaged, does not fit its schema or contradicts itself. One line.

    check: what found it: `ranges` for form, size and types, `recount` for values that were derived again.
    faults: every fault, one line each.
    """

    exit_code = 2

    def __init__(self, message: str, *, check: Check = "recount", faults: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.check, self.faults = check, tuple(faults) or (message,)


def write(run_dir: Path, record: Record) -> Path:
    """Seals a record and writes it to `record.json`, whole or not at all.

    Args:
        run_dir: the folder of the run.
        record: the record; its `hash` is filled in.

    Returns:
        The file's path.

    Raises:
        RecordError: the record takes more than 64 KB.
        OSError: the folder cannot be written.
    """
    sealed = record.sealed()
    text = json.dumps({**sealed.content(), "hash": sealed.hash}, indent=1, sort_keys=True, allow_nan=False) + "\n"
    if len(text) > MAX_BYTES:
        raise RecordError(f"record {record.id} has {len(text)} bytes, {MAX_BYTES} are allowed")
    path = run_dir / NAME
    write_atomically(path, lambda temporary: temporary.write_text(text, "utf-8"))
    return path


def stamp(run_dir: Path) -> int | None:
    """When the run's record was written.

    Args:
        run_dir: the folder of the run.

    Returns:
        Nanoseconds of the file system's clock; None where there is no record.
    """
    try:
        return (run_dir / NAME).stat().st_mtime_ns
    except OSError:
        return None


def read(path: Path) -> Record:
    """A record from its file. No code outside the suite is imported for it.

    Args:
        path: a file that `write` wrote.

    Returns:
        The record, with its hash.

    Raises:
        RecordError: the file is missing or damaged, does not fit the schema, was edited, or holds a value that does not
            follow from its config; with the path and the field's dotted name.
    """
    try:
        return parse(strict_json.read_text(path, MAX_BYTES))
    except ValueError as error:
        raise RecordError(f"{path}: {error}", check="ranges", faults=[str(error)]) from None
    except RecordError as error:
        raise RecordError(f"{path}: {error}", check=error.check, faults=error.faults) from None


def parse(text: str) -> Record:
    """A record from its text.

    Args:
        text: the JSON document.

    Returns:
        The record, with its hash.

    Raises:
        RecordError: as for `read`, without a path.
    """
    raw = _json(text)
    try:
        record = Record.model_validate(raw)
        found = faults(record)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "content"
        message = f"{where}: {' '.join(first['msg'].removeprefix('Value error, ').split())}"
        raise RecordError(message, check="ranges") from None
    except Exception as error:  # whatever options and tasks raise for values that they were not made for
        raise RecordError(f"config: it cannot be used ({type(error).__name__}: {first_line(error)})") from None
    content, given = record.content(), {name: value for name, value in raw.items() if name != "hash"}
    if record.hash != _digest(content) or given != content:
        _name_difference(given, content)
        raise RecordError("hash: it does not match the content (was the file edited?)")
    if found:
        more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
        raise RecordError(found[0] + more, faults=found)
    return record


def _json(text: str) -> dict[str, Any]:
    try:
        raw = strict_json.parse(text)
    except ValueError as error:
        raise RecordError(str(error), check="ranges") from None
    if raw.get("schema") != SCHEMA:
        message = f"schema: {raw.get('schema')!r} is recorded, this version reads {SCHEMA!r}; run it again"
        raise RecordError(message, check="ranges")
    return raw


def _digest(content: dict[str, Any]) -> str:
    try:
        return digest(content)
    except ValueError:
        raise RecordError("data.details: a number is not finite") from None


def _name_difference(raw: object, content: object, where: str = "") -> None:
    """Refuses a missing value, for which a default is no substitute, and one that is written otherwise than this suite
    writes it, `"3"` for 3 or 3 for 3.0: the hash covers the written form.
    """
    if not (isinstance(raw, Mapping) and isinstance(content, Mapping)):
        if canonical_json(raw) != canonical_json(content):
            raise RecordError(f"{where}: {raw!r} is not how it is written: {content!r}")
        return
    for key in [*content, *raw]:
        name = f"{where}.{key}" if where else key
        if key not in raw:
            raise RecordError(f"{name}: it is missing")
        if key not in content:
            raise RecordError(f"{name}: it is unknown")
        _name_difference(raw[key], content[key], name)


def same_figures(a: Record, b: Record) -> bool:
    """Whether two records have the same metrics, bit for bit.

    Args:
        a: one record.
        b: the other.

    Returns:
        True where every metric of every split is equal.
    """
    return canonical_json(a.metrics) == canonical_json(b.metrics)

"""An entry: a folder with an author's records, the source of their mixers, and a document that lists all of it.

entries/AUTHOR/entry.json                     the document
               notes.md                       what the author writes about it, if anything
               records/TASK-SCALE/ID.json     one file per run
               sources/HASH/NAME.py           mixers that do not ship with the suite
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError

from suite.config.identity import canonical_json
from suite.config.run_config import Strict
from suite.errors import UserError, reason
from suite.records import strict_json
from suite.records.schema import Name, Record, Sha256
from tasks.storage.cache import write_atomically

NAME, NOTES, RECORDS, SOURCES = "entry.json", "notes.md", "records", "sources"
#: Bytes of the document, of the notes, and of a mixer's source file.
MAX_BYTES, MAX_NOTES, MAX_SOURCE = 2**20, 16_384, 262_144
MAX_FILES = 5_000
#: Names that are the same on every file system, and in addresses, terminals and pages.
PLAIN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$"
Author = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,38}$")]
_PART = r"[A-Za-z0-9][A-Za-z0-9._-]*"
RecordPath = Annotated[str, Field(pattern=rf"^{RECORDS}/{_PART}/{_PART}\.json$", max_length=300)]
SourcePath = Annotated[str, Field(pattern=rf"^{SOURCES}/[0-9a-f]{{12}}/{_PART}\.py$", max_length=300)]


class Source(Strict):
    """A mixer that does not ship with the suite.

    origin: of its records: a file's name with the beginning of its hash, or a package with its version.
    path: of the file in the entry; None for a package.
    sha256: of the file's content; None for a package.
    """

    origin: Name
    path: SourcePath | None
    sha256: Sha256 | None


class RaceSummary(Strict):
    """A row's race, as it follows from the records.

    mixer: what was entered, with its options.
    chosen: the learning rate that won; None where runs are missing, and the row has no rank.
    runs: how many runs the race had.
    """

    task: Name
    scale: Name
    mixer: Name
    rates: tuple[float, ...]
    chosen: float | None
    runs: int = Field(ge=0)


class Entry(Strict):
    """The document of an entry.

    notes: sha256 of `notes.md`; None without notes.
    records: path of each record → its hash.
    """

    schema_: Literal["mixer-suite/entry/1"] = Field(default="mixer-suite/entry/1", alias="schema")
    author: Author
    notes: Sha256 | None
    sources: tuple[Source, ...]
    races: tuple[RaceSummary, ...]
    records: Annotated[dict[RecordPath, Sha256], Field(min_length=1, max_length=MAX_FILES)]


class EntryError(Exception):
    """A document that cannot be read as an entry. One line."""


def read(path: Path) -> Entry:
    """The document of an entry, read as data.

    Args:
        path: `entry.json`.

    Returns:
        The entry.

    Raises:
        EntryError: the file is missing, too large, no strict JSON, or does not fit the schema.
    """
    try:
        return Entry.model_validate(strict_json.parse(strict_json.read_text(path, MAX_BYTES)))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "content"
        raise EntryError(f"{where}: {' '.join(first['msg'].removeprefix('Value error, ').split())}") from None
    except ValueError as error:
        raise EntryError(str(error)) from None


def write(folder: Path, entry: Entry) -> None:
    """Writes the document.

    Args:
        folder: of the entry.
        entry: the document.
    """
    content = entry.model_dump(mode="json", by_alias=True)
    write_file(folder / NAME, json.dumps(content, indent=1, sort_keys=True, allow_nan=False) + "\n")


def write_file(path: Path, text: str) -> None:
    """Writes a file of an entry, whole or not at all, and the folders above it.

    Args:
        path: the file.
        text: its content.

    Raises:
        UserError: it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, lambda temporary: temporary.write_bytes(text.encode("utf-8")))
    except OSError as error:
        raise UserError(f"{str(path)!r} cannot be written: {reason(error)}") from None


def record_path(made: Record) -> str:
    """Where an entry has a record.

    Args:
        made: the record.

    Returns:
        Path relative to the entry.
    """
    return f"{RECORDS}/{made.task}-{made.scale}/{made.id}.json"


def record_text(made: Record) -> str:
    """A record as an entry holds it.

    Args:
        made: the record, with its hash.

    Returns:
        JSON on one line.
    """
    return canonical_json({**made.content(), "hash": made.hash}) + "\n"


def source_path(origin: str) -> str:
    """Where an entry has the source of a mixer.

    Args:
        origin: of a record, `NAME.py@HASH`.

    Returns:
        Path relative to the entry.
    """
    file, _, digest = origin.rpartition("@")
    return f"{SOURCES}/{digest}/{file}"


def summary(values: Mapping[str, Any]) -> str:
    """A race in a few words, for messages.

    Args:
        values: of a `RaceSummary`.

    Returns:
        `fem on sotu, board: 20 runs, lr 0.003`.
    """
    rate = "not ended" if values["chosen"] is None else f"lr {values['chosen']:g}"
    return f"{values['mixer']} on {values['task']}, {values['scale']}: {values['runs']} runs, {rate}"

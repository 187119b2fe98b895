"""All records under a folder: those that can be relied on, and those that are refused, each with its fault."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from suite.records import record, runs_folder
from suite.records.schema import SCHEMA, Record

FAMILY = SCHEMA.rpartition("/")[0] + "/"


@dataclass(frozen=True)
class Refused:
    """A record file that cannot be relied on, and why, in one line with its path.

    task: of which task it claims to be; None where even that cannot be read.
    """

    path: Path
    reason: str
    task: str | None


@dataclass(frozen=True)
class Collection:
    """Records, the oldest run first, and what was refused."""

    records: tuple[Record, ...]
    refused: tuple[Refused, ...] = ()


def read_all(folder: Path | None = None) -> Collection:
    """Reads every run's record.

    Args:
        folder: the folder of the runs' folders; the runs folder if None.

    Returns:
        All records that can be relied on, and all others with their faults. One that is refused costs no other.
    """
    return _read(sorted((folder or runs_folder.home()).glob(f"*/{record.NAME}")))[0]


def read_published(folder: Path) -> tuple[Collection, dict[str, str]]:
    """Reads all records below a folder, whatever their files are called.

    Args:
        folder: of published entries.

    Returns:
        The records, and hash of a record → its file relative to the folder. Files that claim to be no record are left
        alone; links are not followed.
    """
    files = (path for path in sorted(folder.rglob("*.json")) if not path.is_symlink())
    found, paths = _read(path for path in files if (_claims(path, "schema") or "").startswith(FAMILY))
    return found, {digest: path.relative_to(folder).as_posix() for digest, path in paths.items()}


def _read(paths: Iterable[Path]) -> tuple[Collection, dict[str, Path]]:
    """All records of some files, and hash of a record → its file."""
    records, files, refused = list[Record](), dict[str, Path](), list[Refused]()
    for path in paths:
        try:
            records.append(made := record.read(path))
            files[made.hash] = path
        except record.RecordError as error:
            refused.append(Refused(path, str(error), _claims(path, "task")))
    return Collection(tuple(sorted(records, key=lambda made: (_moment(made), made.id))), tuple(refused)), files


def _moment(made: Record) -> datetime:
    return datetime.fromisoformat(made.created)


def _claims(path: Path, name: str) -> str | None:
    """A text at the top of a JSON file, which nothing has checked."""
    try:
        with open(path, "rb") as handle:
            claimed = json.loads(handle.read(record.MAX_BYTES + 1))[name]
    except (OSError, ValueError, RecursionError, LookupError, TypeError):
        return None
    return claimed if isinstance(claimed, str) else None

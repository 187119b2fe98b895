"""All records under a folder: those that can be relied on, and those that are refused, each with its fault."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from suite.records import record, runs_folder
from suite.records.schema import Record


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
    records, refused = list[Record](), list[Refused]()
    for path in sorted((folder or runs_folder.home()).glob(f"*/{record.NAME}")):
        try:
            records.append(record.read(path))
        except record.RecordError as error:
            refused.append(Refused(path, str(error), _claimed_task(path)))
    return Collection(tuple(sorted(records, key=lambda made: (_moment(made), made.id))), tuple(refused))


def _moment(made: Record) -> datetime:
    return datetime.fromisoformat(made.created)


def _claimed_task(path: Path) -> str | None:
    try:
        with open(path, "rb") as handle:
            claimed = json.loads(handle.read(record.MAX_BYTES + 1))["task"]
    except (OSError, ValueError, RecursionError, LookupError, TypeError):
        return None
    return claimed if isinstance(claimed, str) else None

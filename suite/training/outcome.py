"""How a run ended, and writing its record wherever that is possible."""

from __future__ import annotations

import tempfile
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from suite.errors import reason
from suite.records import record
from suite.records.rescued import RESCUED
from suite.records.schema import Record
from suite.safe_text import redacted
from suite.training.job import Job

TRACEBACK = "traceback.txt"


@dataclass(frozen=True)
class Outcome:
    """A run's record, its file (None where it could not be written: it was then printed on stderr), and the exit
    code.
    """

    record: Record
    path: Path | None
    exit_code: int


def write_record(job: Job, made: Record, warn: Callable[[str], None]) -> Path | None:
    """Writes the record; where the run's folder refuses it, to a temporary folder, and at worst to stderr."""
    try:
        return record.write(job.folder, made)
    except Exception as error:
        refused = reason(error)
    try:
        spare = record.write(Path(tempfile.mkdtemp(prefix=RESCUED)), made)
        warn(
            f"the record could not be written to {job.folder} ({refused}); it is in {spare.parent}, and `suite doctor` "
            "moves it back"
        )
        return spare
    except Exception:
        text = made.sealed().model_dump_json(by_alias=True)
        warn(f"the record could be written nowhere ({refused}); here it is: {text}")
        return None


def keep_traceback(job: Job, warn: Callable[[str], None], name: str = TRACEBACK) -> None:
    """Writes the traceback of the current exception into the run's folder."""
    text = redacted(traceback.format_exc())
    try:
        (job.folder / name).write_text(text, "utf-8")
    except OSError:
        warn(text)

"""Records that a full or failed disk refused, and that their runs wrote to a temporary folder instead."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from suite.records import record, runs_folder

RESCUED = "mixer-suite-"  # how the temporary folders' names begin


def find() -> list[Path]:
    """The rescued records of this user."""
    found = sorted(Path(tempfile.gettempdir()).glob(f"{RESCUED}*/{record.NAME}"))
    return [path for path in found if not path.is_symlink() and path.stat().st_uid == os.getuid()]


def move_back() -> tuple[list[str], list[str]]:
    """Moves rescued records to their runs' folders in this runs folder.

    Returns:
        What was moved, and what could not be, one line each.
    """
    moved, left = list[str](), list[str]()
    for path in find():
        try:
            made = record.read(path)
            folder = runs_folder.home() / made.id
            if not (folder / runs_folder.CONFIG).is_file():
                continue  # of another runs folder
            if not _is_newer(folder / record.NAME, path):
                record.write(folder, made)
            shutil.rmtree(path.parent)
            moved.append(made.id)
        except (record.RecordError, OSError) as error:
            left.append(f"{path}: {error}")
    return moved, left


def _is_newer(own: Path, rescued: Path) -> bool:
    """Whether the run has written a record since, after it was resumed."""
    return own.exists() and own.stat().st_mtime > rescued.stat().st_mtime

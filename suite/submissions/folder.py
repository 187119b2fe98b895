"""The files of an entry: which there may be, of which size, and that each is a plain file inside the folder."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass, field
from pathlib import Path

from suite.records import record
from suite.submissions import entry
from suite.submissions.faults import Fault

MAX_DEPTH = 4


@dataclass
class Files:
    """The plain files of an entry, by path relative to its folder, and what is wrong with the others."""

    found: dict[str, Path] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)


def scan(folder: Path) -> Files:
    """Lists the files of an entry without following a link or reading a file.

    Args:
        folder: of the entry.

    Returns:
        Its files, and the faults in their kinds, numbers and sizes.
    """
    files = Files()
    if folder.is_symlink():
        files.faults.append(Fault(".", "it is a link", "ranges"))
        return files
    _scan(folder, "", files)
    return files


def _scan(folder: Path, below: str, files: Files) -> None:
    for found in sorted(os.scandir(folder), key=lambda each: each.name):
        name = f"{below}{found.name}"
        if len(files.found) + len(files.faults) > entry.MAX_FILES:
            if files.faults[-1:] != [_too_many()]:
                files.faults.append(_too_many())
            return
        if found.is_symlink():
            files.faults.append(Fault(name, "it is a link", "ranges"))
        elif found.is_dir():
            if name.count("/") + 1 >= MAX_DEPTH:
                files.faults.append(Fault(name, "no such folder belongs to an entry", "ranges"))
            else:
                _scan(Path(found.path), f"{name}/", files)
        elif not stat.S_ISREG(found.stat(follow_symlinks=False).st_mode):
            files.faults.append(Fault(name, "it is no plain file", "ranges"))
        elif fault := _of_size(name, found.stat(follow_symlinks=False).st_size):
            files.faults.append(fault)
        else:
            files.found[name] = Path(found.path)


def _too_many() -> Fault:
    return Fault(".", f"an entry has at most {entry.MAX_FILES} files", "ranges")


def _of_size(name: str, size: int) -> Fault | None:
    first, _, rest = name.partition("/")
    limits = {
        entry.NAME: entry.MAX_BYTES,
        entry.NOTES: entry.MAX_NOTES,
        entry.RECORDS: record.MAX_BYTES if rest.endswith(".json") else 0,
        entry.SOURCES: entry.MAX_SOURCE if rest.endswith(".py") else 0,
    }
    most = limits.get(first if rest else name, 0)
    if not most or (rest == "" and first in (entry.RECORDS, entry.SOURCES)):
        return Fault(name, "no such file belongs to an entry", "ranges")
    return Fault(name, f"it has {size} bytes, {most} are allowed", "ranges") if size > most else None

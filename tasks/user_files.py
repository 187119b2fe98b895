"""A user's files: what is told where they cannot be read, and what tells their content from another one."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from hashlib import blake2b
from pathlib import Path

from tasks.base import DataError

HASHED_WHOLE = 256 * 2**20  # bytes of files that are told from others by all of them
SAMPLES, SAMPLE = 16, 64 * 2**10  # pieces of each file where there are more, and bytes of a piece


@contextmanager
def reading(place: Path) -> Iterator[None]:
    """Turns what the system says of a file or folder into one line that names it. Raises DataError."""
    try:
        yield
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else (str(error) or type(error).__name__).splitlines()[0]
        raise DataError(f"{error.filename or place} cannot be read: {reason}; make it readable, or remove it") from error


def files_below(root: Path) -> list[Path]:
    """All files of a folder and of those in it, in order of path; what begins with a dot is left out. Raises DataError."""
    found: list[Path] = []
    with reading(root):
        for folder, folders, names in os.walk(root, onerror=_give_up):
            folders[:] = [name for name in folders if not name.startswith(".")]
            found += [Path(folder, name) for name in names if not name.startswith(".")]
        return sorted(path for path in found if path.is_file())


def _give_up(error: OSError) -> None:
    raise error


def bytes_of(files: Sequence[Path]) -> int:
    """Bytes of some files. Raises DataError."""
    total = 0
    for file in files:
        with reading(file):
            total += os.stat(file).st_size
    return total


def describe_files(root: Path, files: Sequence[Path]) -> list[tuple[str, int, int, str]]:
    """Of each file its path below `root`, its bytes, its time of change (nanoseconds) and a hash over its content.

    Paths, bytes and times alone do not tell two folders apart that came out of archives which set every time alike. All of the content
    is hashed where the files are small in all; of larger ones, pieces of each: what is edited in place between them has another time.
    """
    found = []
    for file in files:
        with reading(file):
            found.append((file, os.stat(file)))
    whole = sum(status.st_size for _, status in found) <= HASHED_WHOLE
    made = []
    for file, status in found:
        name = file.relative_to(root).as_posix() if file.is_relative_to(root) else file.name
        digest = _content_hash(file, status.st_size, status.st_mtime_ns, whole)
        made.append((name, status.st_size, status.st_mtime_ns, digest))
    return made


@cache  # so that a process reads each file once
def _content_hash(file: Path, size: int, changed: int, whole: bool) -> str:
    made = blake2b(digest_size=16)
    with reading(file), file.open("rb") as stream:
        if whole or size <= SAMPLES * SAMPLE:
            while chunk := stream.read(SAMPLES * SAMPLE):
                made.update(chunk)
            return made.hexdigest()
        for n in range(SAMPLES):  # the first begins the file, the last ends it
            stream.seek((size - SAMPLE) * n // (SAMPLES - 1))
            made.update(stream.read(SAMPLE))
    return made.hexdigest()

"""A user's files: which there are, what is told where they cannot be read, and what tells their content from another
one.
"""

from __future__ import annotations

import errno
import os
from collections import Counter
from collections.abc import Container, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from hashlib import blake2b
from pathlib import Path

from tasks.base import DataError

HASHED_WHOLE = 256 * 2**20  # bytes of files that are told from others by all of them
SAMPLES, SAMPLE = 16, 64 * 2**10  # pieces of each file where there are more, and bytes of a piece
TOLD_KINDS = 6  # of files left out, by name


@contextmanager
def reading(place: Path) -> Iterator[None]:
    """Turns what the system says of a file or folder into one line that names it. Raises DataError."""
    try:
        yield
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else (str(error) or type(error).__name__).splitlines()[0]
        raise DataError(
            f"{error.filename or place} cannot be read: {reason}; make it readable, or remove it"
        ) from error


def files_below(root: Path) -> list[Path]:
    """All files of a folder and of those in it, in order of path, as `entries_below` finds them. Raises DataError."""
    with reading(root):
        entries = entries_below(root, above=root.resolve().parents)
        return sorted(path for _, entry in entries if (path := Path(entry.path)).is_file())


def entries_below(
    folder: Path, above: Sequence[Path] = (), skipped: Container[str] = ()
) -> Iterator[tuple[str, os.DirEntry[str]]]:
    """The files in a folder and the folders below it, each with its path from there, but for what `is_shown` does not.

    Links are followed. They may lead in a circle, so no folder is read twice, and none of `above`; one that is also
    there by itself is not read through a link.
    """
    seen = {os.path.realpath(place) for place in above}
    folders, links = [("", str(folder))], list[tuple[str, str]]()
    while folders or links:
        prefix, place = (folders or links).pop()
        real = os.path.realpath(place)
        if real in seen:
            continue
        seen.add(real)
        for entry in sorted(os.scandir(place), key=lambda entry: entry.name, reverse=True):
            if not is_shown(entry.name, skipped):
                continue
            if _is_folder(entry):
                (links if entry.is_symlink() else folders).append((f"{prefix}{entry.name}/", entry.path))
            else:
                yield f"{prefix}{entry.name}", entry


def is_shown(name: str, skipped: Container[str] = ()) -> bool:
    """Whether a file or folder of that name counts: neither hidden by a dot nor one of `skipped`."""
    return not name.startswith(".") and name not in skipped


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError as error:
        if error.errno == errno.ELOOP:  # a link to itself is no folder
            return False
        raise


def suffix_of(name: str) -> str:
    return os.path.splitext(name)[1].lower()


def of_other_kinds(kinds: Counter[str], read: Iterable[str]) -> str:
    """How many files are not read, the most frequent suffixes by name, and which are; empty where there are none."""
    if not kinds:
        return ""
    ranked = sorted(kinds.items(), key=lambda kind: (-kind[1], kind[0]))
    told = [f"{count:,} {suffix or 'without a suffix'}" for suffix, count in ranked[:TOLD_KINDS]]
    told += ["…"] if len(ranked) > TOLD_KINDS else []
    total = kinds.total()
    return f"{total:,} file{'s' * (total > 1)} of other kinds ({', '.join(told)}; read are {', '.join(sorted(read))})"


def bytes_of(files: Sequence[Path]) -> int:
    """Bytes of some files. Raises DataError."""
    total = 0
    for file in files:
        with reading(file):
            total += os.stat(file).st_size
    return total


def describe_files(root: Path, files: Sequence[Path]) -> list[tuple[str, int, int, str]]:
    """Of each file its path below `root`, its bytes, its time of change (nanoseconds) and a hash over its content.

    Paths, bytes and times alone do not tell two folders apart that came out of archives which set every time alike. All
    of the content is hashed where the files are small in all; of larger ones, pieces of each: what is edited in place
    between them has another time.
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

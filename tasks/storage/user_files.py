"""A user's files: finding them, reporting unreadable ones, and identifying their content."""

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

MAX_FULL_HASH_BYTES = 256 * 2**20  # total size up to which files are hashed as a whole
SAMPLES, SAMPLE_BYTES = 16, 64 * 2**10  # of each file, if there is more
MAX_NAMED_SUFFIXES = 6


@contextmanager
def reading(place: Path) -> Iterator[None]:
    """Reports the system's errors about a file or folder as a DataError of one line that names it."""
    try:
        yield
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else (str(error) or type(error).__name__).splitlines()[0]
        raise DataError(
            f"{error.filename or place} cannot be read: {reason}; make it readable, or remove it"
        ) from error


def files_below(root: Path) -> list[Path]:
    """All files in a folder and its subfolders, sorted by path, as `entries_below` finds them. Raises DataError."""
    with reading(root):
        entries = entries_below(root, above=root.resolve().parents)
        return sorted(path for _, entry in entries if (path := Path(entry.path)).is_file())


def entries_below(
    folder: Path, above: Sequence[Path] = (), skipped: Container[str] = ()
) -> Iterator[tuple[str, os.DirEntry[str]]]:
    """The files in a folder and its subfolders, with their paths relative to it, without hidden and `skipped` names.

    Links are followed. They may form a circle, so no folder is read twice, and none of the folders in `above` is read.
    A folder that is also inside the tree itself is not read through a link.
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
            if not is_included(entry.name, skipped):
                continue
            if is_folder(entry):
                (links if entry.is_symlink() else folders).append((f"{prefix}{entry.name}/", entry.path))
            else:
                yield f"{prefix}{entry.name}", entry


def is_included(name: str, skipped: Container[str] = ()) -> bool:
    """Whether a file or folder of that name counts: it is not hidden (by a dot) and not in `skipped`."""
    return not name.startswith(".") and name not in skipped


def is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether it is a folder or a link to one; a link to itself is not."""
    try:
        return entry.is_dir()
    except OSError as error:
        if error.errno == errno.ELOOP:  # a link to itself is not a folder
            return False
        raise


def suffix_of(name: str) -> str:
    return os.path.splitext(name)[1].lower()


def describe_other_files(counts: Counter[str], accepted: Iterable[str]) -> str:
    """How many files are not read, their most frequent suffixes, and the accepted ones; empty if there are none."""
    if not counts:
        return ""
    ranked = sorted(counts.items(), key=lambda suffix: (-suffix[1], suffix[0]))
    named = [f"{count:,} {suffix or 'without a suffix'}" for suffix, count in ranked[:MAX_NAMED_SUFFIXES]]
    named += ["…"] if len(ranked) > MAX_NAMED_SUFFIXES else []
    total = counts.total()
    files = f"{total:,} file{'s' * (total > 1)} of other types"
    return f"{files} ({', '.join(named)}; accepted: {', '.join(sorted(accepted))})"


def bytes_of(files: Sequence[Path]) -> int:
    """Total size of some files. Raises DataError."""
    total = 0
    for file in files:
        with reading(file):
            total += os.stat(file).st_size
    return total


def describe_files(root: Path, files: Sequence[Path]) -> list[tuple[str, int, int, str]]:
    """For each file its path below `root`, its bytes, its modification time (nanoseconds) and a hash of its content.

    Paths, bytes and times alone cannot distinguish folders from archives that set the same time everywhere. If the
    files are small in total, all of the content is hashed, otherwise samples of each file: an edit between the samples
    changes the modification time.
    """
    found = []
    for file in files:
        with reading(file):
            found.append((file, os.stat(file)))
    full = sum(status.st_size for _, status in found) <= MAX_FULL_HASH_BYTES
    described = []
    for file, status in found:
        name = file.relative_to(root).as_posix() if file.is_relative_to(root) else file.name
        digest = _content_hash(file, status.st_size, status.st_mtime_ns, full)
        described.append((name, status.st_size, status.st_mtime_ns, digest))
    return described


@cache  # a process reads each file once
def _content_hash(file: Path, size: int, changed: int, full: bool) -> str:
    digest = blake2b(digest_size=16)
    with reading(file), file.open("rb") as stream:
        if full or size <= SAMPLES * SAMPLE_BYTES:
            while chunk := stream.read(SAMPLES * SAMPLE_BYTES):
                digest.update(chunk)
            return digest.hexdigest()
        for n in range(SAMPLES):  # from the beginning of the file to its end
            stream.seek((size - SAMPLE_BYTES) * n // (SAMPLES - 1))
            digest.update(stream.read(SAMPLE_BYTES))
    return digest.hexdigest()

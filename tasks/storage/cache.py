"""The cache of prepared data: `$SUITE_CACHE`, else `mixer-suite` in the user's cache folder. It can be deleted."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tasks.base import DataError

RESERVE = 1.1  # free disk space required, relative to the size of the data


class UnwritableError(DataError):
    """A folder of the cache cannot be written."""


def folder(*parts: str) -> Path:
    """A folder of the cache, created if it is missing. Raises DataError if it cannot be created."""
    base = os.environ.get("XDG_CACHE_HOME")
    root = Path(
        os.environ.get("SUITE_CACHE") or (Path(base) if base else Path.home() / ".cache") / "mixer-suite"
    ).absolute()
    place = root.joinpath(*parts)
    try:
        place.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(
            f"the cache folder {place} cannot be created ({error.strerror}); set SUITE_CACHE to a writable folder"
        ) from None
    return place


def require_space(where: Path, needed: int, what: str) -> None:
    """Raises DataError if the disk of `where` has too little free space for `needed` bytes."""
    free = shutil.disk_usage(where).free
    if free < RESERVE * needed:
        raise DataError(
            f"{what} needs about {needed / 1e6:,.0f} MB, {where} has {free / 1e6:,.0f} MB free; free some space, or "
            "set SUITE_CACHE to a folder on another disk"
        )


def unwritable(where: Path, error: OSError) -> UnwritableError:
    """The error about a folder of the cache that cannot be written."""
    return UnwritableError(
        f"the cache folder {where} cannot be written ({error.strerror or error}); set SUITE_CACHE to a writable folder"
    )


@contextmanager
def lock(path: Path) -> Iterator[None]:
    """Waits for the lock file `path` and holds it. Raises UnwritableError if its folder cannot be written.

    Errors from within the `with` block pass through unchanged.
    """
    from filelock import FileLock

    held = FileLock(path)
    try:
        held.acquire()
    except OSError as error:
        raise unwritable(path.parent, error) from error
    try:
        yield
    finally:
        held.release()


def write_text(path: Path, text: str) -> None:
    """Writes a text file of the cache, completely or not at all. Raises UnwritableError."""
    try:
        write_atomically(path, lambda temporary: temporary.write_text(text, "utf-8"))
    except OSError as error:
        raise unwritable(path.parent, error) from error


def write_atomically(path: Path, save: Callable[[Path], object]) -> None:
    """Calls `save(temporary)`, then moves the file into place: a reader sees the old file or the complete new one."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        save(temporary)
        with open(temporary, "rb") as handle:
            os.fsync(handle.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)

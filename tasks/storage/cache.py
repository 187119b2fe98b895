"""Where prepared data are kept: `$SUITE_CACHE`, else `mixer-suite` in the user's cache folder. All of it can be made
again.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tasks.base import DataError

RESERVE = 1.1  # free disk asked for, in units of what is needed


class UnwritableError(DataError):
    """A folder of the cache cannot be written."""


def folder(*parts: str) -> Path:
    """A folder of the cache, made where it is missing. Raises DataError where it cannot be."""
    base = os.environ.get("XDG_CACHE_HOME")
    root = Path(
        os.environ.get("SUITE_CACHE") or (Path(base) if base else Path.home() / ".cache") / "mixer-suite"
    ).absolute()
    made = root.joinpath(*parts)
    try:
        made.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(
            f"prepared data cannot be kept in {made} ({error.strerror}); set SUITE_CACHE to a folder that can be"
        ) from None
    return made


def require_space(where: Path, needed: int, what: str) -> None:
    """Raises DataError where the disk of `where` has too little left for `needed` bytes."""
    free = shutil.disk_usage(where).free
    if free < RESERVE * needed:
        raise DataError(
            f"{what} takes about {needed / 1e6:,.0f} MB, {where} has {free / 1e6:,.0f} MB left; make room, or "
            "set SUITE_CACHE"
        )


def unwritable(where: Path, error: OSError) -> UnwritableError:
    """What a user is told where a folder of the cache cannot be written."""
    return UnwritableError(
        f"the cache folder {where} cannot be written ({error.strerror or error}); set SUITE_CACHE to a folder "
        "that can be"
    )


@contextmanager
def lock(path: Path) -> Iterator[None]:
    """Holds the lock file `path`, having waited for whoever else does. Raises UnwritableError where its folder cannot
    be written.

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
    """Writes a text file of the cache, whole or not at all. Raises UnwritableError."""
    try:
        write_atomically(path, lambda temporary: temporary.write_text(text, "utf-8"))
    except OSError as error:
        raise unwritable(path.parent, error) from error


def write_atomically(path: Path, save: Callable[[Path], object]) -> None:
    """Calls `save(temporary)`, then moves the file into place: a reader sees the old file or the new one, never a
    part.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        save(temporary)
        with open(temporary, "rb") as handle:
            os.fsync(handle.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)

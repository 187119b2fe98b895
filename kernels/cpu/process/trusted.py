"""Where files that are relied on may lie, and whether a file there is the one that was written: the compiled library,
and what the suite found about records and models.

Loading a library executes it, so its folder and its files belong to this user or root, are writable by nobody else, and
are no links. Elsewhere a private folder is used. The same holds for answers, which can say that a record is sound.
"""

from __future__ import annotations

import hashlib
import os
import stat
import tempfile
from functools import cache
from pathlib import Path

PRIVATE = 0o700
_ROOT = 0


@cache
def _temporary() -> Path:
    return Path(tempfile.mkdtemp(prefix="mixer-suite-kernels-"))


def folder() -> Path:
    """The folder of compiled libraries: that of `lasting_folder`, at worst one for this process alone.

    Returns:
        An existing folder that nobody else can write to.
    """
    return lasting_folder("kernels") or _temporary()


def lasting_folder(name: str) -> Path | None:
    """A folder that later processes find again: `$SUITE_CACHE/NAME`, else in the user's cache folder. Where that cannot
    be used, a folder of this user in the temporary folder.

    Args:
        name: of the folder.

    Returns:
        An existing folder that nobody else can write to; None where there is none.
    """
    named, caches = os.environ.get("SUITE_CACHE"), os.environ.get("XDG_CACHE_HOME")
    places = []
    try:
        root = Path(named) if named else (Path(caches) if caches else Path.home() / ".cache") / "mixer-suite"
        places.append(root.absolute() / name)
    except RuntimeError:  # no home folder
        pass
    places.append(Path(tempfile.gettempdir()) / f"mixer-suite-{os.getuid()}" / name)
    for place in places:
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            place.mkdir(mode=PRIVATE, exist_ok=True)
        except OSError:
            continue
        if _is_ours(place, stat.S_ISDIR) and os.access(place, os.W_OK):
            return place
    return None


def fault(path: Path) -> str:
    """What is wrong with a library or another sealed file.

    Args:
        path: in `folder()` or a `lasting_folder`.

    Returns:
        Empty where it is the one that was sealed; else the reason.
    """
    if not _is_ours(path, stat.S_ISREG) or not _is_ours(_seal(path), stat.S_ISREG):
        return "is missing, a link, or can be written by others"
    try:
        recorded = _seal(path).read_text("utf-8")
    except (OSError, UnicodeDecodeError):
        return "has no readable hash"
    return "" if recorded == _digest(path) else "is damaged: its hash is not the one of what was built"


def seal(path: Path) -> None:
    """Records the hash of a library that was built and compared, or of another file.

    Args:
        path: in `folder()` or a `lasting_folder`.
    """
    temporary = _seal(path).with_suffix(f".{os.getpid()}")
    temporary.write_text(_digest(path), "utf-8")
    temporary.chmod(0o600)
    os.replace(temporary, _seal(path))


def store(path: Path, text: str) -> None:
    """Writes a text, whole or not at all, and records its hash.

    Args:
        path: in a `lasting_folder`.
        text: its content.

    Raises:
        OSError: it cannot be written.
    """
    temporary = path.with_suffix(f".{os.getpid()}.part")
    try:
        temporary.write_text(text, "utf-8")
        temporary.chmod(0o600)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    seal(path)


def remove(path: Path) -> None:
    """Removes a library or another sealed file and its hash, if they exist.

    Args:
        path: in `folder()` or a `lasting_folder`.
    """
    _seal(path).unlink(missing_ok=True)
    path.unlink(missing_ok=True)


def _seal(path: Path) -> Path:
    return path.with_suffix(".sha256")


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _is_ours(path: Path, kind: object) -> bool:
    """Whether a path is of this kind, belongs to this user or root, and can be written by nobody else."""
    assert callable(kind)
    try:
        found = path.lstat()
    except OSError:
        return False
    writable = found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    return bool(kind(found.st_mode)) and found.st_uid in (os.getuid(), _ROOT) and not writable

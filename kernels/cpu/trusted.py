"""Where the compiled library may lie, and whether a file there is the one that was built.

Loading a library executes it, so its folder and its files belong to this user or root, are writable by nobody else, and
are no links. Elsewhere a private folder is used.
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
    """The folder of compiled libraries: `$SUITE_CACHE/kernels`, else in the user's cache folder. Where that cannot be
    used, a folder of this user in the temporary folder, at worst one for this process alone.

    Returns:
        An existing folder that nobody else can write to.
    """
    named, caches = os.environ.get("SUITE_CACHE"), os.environ.get("XDG_CACHE_HOME")
    places = []
    try:
        root = Path(named) if named else (Path(caches) if caches else Path.home() / ".cache") / "mixer-suite"
        places.append(root.absolute() / "kernels")
    except RuntimeError:  # no home folder
        pass
    places.append(Path(tempfile.gettempdir()) / f"mixer-suite-{os.getuid()}" / "kernels")
    for place in places:
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            place.mkdir(mode=PRIVATE, exist_ok=True)
        except OSError:
            continue
        if _is_ours(place, stat.S_ISDIR) and os.access(place, os.W_OK):
            return place
    return _temporary()


def fault(path: Path) -> str:
    """What is wrong with a library.

    Args:
        path: in `folder()`.

    Returns:
        Empty where it is the one that was built and compared; else the reason.
    """
    if not _is_ours(path, stat.S_ISREG) or not _is_ours(_seal(path), stat.S_ISREG):
        return "is missing, a link, or can be written by others"
    try:
        recorded = _seal(path).read_text("utf-8")
    except (OSError, UnicodeDecodeError):
        return "has no readable hash"
    return "" if recorded == _digest(path) else "is damaged: its hash is not the one of what was built"


def seal(path: Path) -> None:
    """Records the hash of a library that was built and compared.

    Args:
        path: in `folder()`.
    """
    temporary = _seal(path).with_suffix(f".{os.getpid()}")
    temporary.write_text(_digest(path), "utf-8")
    temporary.chmod(0o600)
    os.replace(temporary, _seal(path))


def remove(path: Path) -> None:
    """Removes a library and its hash, if they exist.

    Args:
        path: in `folder()`.
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

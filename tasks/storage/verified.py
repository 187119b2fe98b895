"""Files that are used again are not trusted: their content is hashed, once per machine for large ones.

A large file whose path, size, times and inode are those of the last check is taken as unchanged. Small files are hashed
in every process, and all files where `SUITE_VERIFY_DATA=always` is set (`suite run --verify-data`).
"""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from hashlib import sha256
from pathlib import Path

from tasks.base import DataError
from tasks.storage import cache
from tasks.storage.user_files import reading

SETTING = "SUITE_VERIFY_DATA"  # "always": every file is hashed whatever its size
SMALL_BYTES = 16 * 2**20  # in total; smaller files are always hashed, which takes a few hundredths of a second
CHUNK_BYTES = 4 * 2**20
_seen: dict[str, str] = {}  # a process hashes the same files once: their digest by their state


def digest_once(files: Sequence[Path], digest: Callable[[], str], expected: str = "", what: str = "") -> str:
    """The digest of some files, computed only where it is not known for their present state.

    Args:
        files: The files that the digest covers.
        digest: Reads the files and returns their digest (hex).
        expected: The digest that they had when they were written, if that is recorded. Another one is not remembered.
        what: Anything else that the digest depends on, such as the part of the files that is in use.

    Returns:
        The digest of the files as they are.

    Raises:
        DataError: A file cannot be read.
    """
    state, total = _state(files, what)
    if state not in _seen:
        trusted = total > SMALL_BYTES and os.environ.get(SETTING) != "always"
        found = (_recorded(files, what, state) if trusted else "") or digest()
        if expected and found != expected:
            return found
        _seen[state] = found
        if total > SMALL_BYTES:
            _record(files, what, state, found)
    return _seen[state]


@contextmanager
def hashing_all(wanted: bool = True) -> Iterator[None]:
    """Within the block, every file is hashed whatever its size, if `wanted`."""
    before = os.environ.get(SETTING)
    if wanted:
        os.environ[SETTING] = "always"
    try:
        yield
    finally:
        if wanted:
            os.environ.pop(SETTING) if before is None else os.environ.update({SETTING: before})


def remember(files: Sequence[Path], digest: str) -> None:
    """Records the digest of files that this process has just written."""
    state, total = _state(files, "")
    _seen[state] = digest
    if total > SMALL_BYTES:
        _record(files, "", state, digest)


def content_hash(files: Sequence[Path]) -> str:
    """sha256 over the content of some files in their order. Raises DataError."""

    def read() -> str:
        whole = sha256()
        for file in files:
            whole.update(file_hash(file).encode())
        return whole.hexdigest()

    return digest_once(files, read)


def file_hash(file: Path) -> str:
    """sha256 of the content of a file. Raises DataError."""
    whole = sha256()
    with reading(file), file.open("rb") as stream:
        while chunk := stream.read(CHUNK_BYTES):
            whole.update(chunk)
    return whole.hexdigest()


def _state(files: Sequence[Path], what: str) -> tuple[str, int]:
    """What changes with every change of the files, and their size in bytes."""
    listed, total = sha256(f"{what}\n".encode()), 0
    for file in files:
        with reading(file):
            at = file.stat()
        total += at.st_size
        listed.update(
            f"{os.fspath(file)!r} {at.st_size} {at.st_mtime_ns} {at.st_ctime_ns} {at.st_ino} {at.st_dev}\n".encode()
        )
    return listed.hexdigest(), total


def _place(files: Sequence[Path], what: str) -> Path:
    name = sha256("\n".join([platform.node(), what, *map(str, files)]).encode("utf-8", "surrogateescape")).hexdigest()[
        :32
    ]
    return cache.folder("verified") / f"{name}.json"


def _recorded(files: Sequence[Path], what: str, state: str) -> str:
    """The recorded digest of the files in this state; empty if there is none."""
    with suppress(DataError, OSError, ValueError, TypeError, AttributeError):
        recorded = json.loads(_place(files, what).read_text("utf-8"))
        return str(recorded["digest"]) if recorded.get("state") == state else ""
    return ""


def _record(files: Sequence[Path], what: str, state: str, digest: str) -> None:
    with suppress(DataError):  # without a writable cache the files are hashed again
        cache.write_text(_place(files, what), json.dumps({"state": state, "digest": digest}))

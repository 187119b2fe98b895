"""Descriptions of the built-in tasks and mixers, kept in the cache folder: describing mixers imports PyTorch, which
takes five times as long as everything else that a list needs.

They are kept with a hash of all code that they are read from, so that those of changed code are not used. Where
packages add tasks or mixers, nothing is kept: their code may change at any time.
"""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Callable, Iterator
from hashlib import sha256
from importlib.metadata import PackageNotFoundError, entry_points, version
from pathlib import Path
from typing import Any

Rows = list[dict[str, Any]]

ROOT = Path(__file__).resolve().parents[2]
#: What a description is read from. The constants of `kernels` are none of it.
SOURCES = ("tasks", "backbones", "suite/config", "suite/cli/commands/listing.py")
#: Packages whose presence decides whether a mixer is available.
PACKAGES = ("flash-linear-attention",)


def described(kind: str, group: str, describe: Callable[[], Rows]) -> Rows:
    """The rows of a list.

    Args:
        kind: names the list: tasks or mixers.
        group: the entry points of packages that add to it.
        describe: makes the rows, as plain JSON values.

    Returns:
        What `describe` returns, or returned when it was last called with the same code.
    """
    if entry_points(group=group):
        return describe()
    from tasks.errors import DataError
    from tasks.storage.cache import folder, write_text

    key, rows = code_key(), None
    with contextlib.suppress(DataError, OSError, ValueError, KeyError, TypeError):  # it is missing or damaged
        content = json.loads((folder("descriptions") / f"{kind}.json").read_text("utf-8"))
        rows = content["rows"] if content["code"] == key else None
    if isinstance(rows, list):
        return rows
    rows = describe()
    with contextlib.suppress(DataError):  # where no cache can be written, they are described again next time
        write_text(folder("descriptions") / f"{kind}.json", json.dumps({"code": key, "rows": rows}))
    return rows


def code_key() -> str:
    """A hash of the code that descriptions are read from.

    Returns:
        sha256, hexadecimal.
    """
    content = sha256(repr((sys.version, *map(_installed, PACKAGES))).encode())
    for path in _files():
        content.update(str(path.relative_to(ROOT)).encode() + b"\0" + path.read_bytes() + b"\0")
    return content.hexdigest()


def _files() -> Iterator[Path]:
    for name in SOURCES:
        place = ROOT / name
        yield from [place] if place.is_file() else sorted([*place.rglob("*.py"), *place.rglob("*.toml")])


def _installed(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""

"""Answers kept in the cache folder for later commands: what follows from code and files alone is found once.

Importing PyTorch takes 4 CPU seconds, ten times as long as everything else that a list or a board needs. An answer is
used only where all that it follows from is unchanged: the code, the versions of packages and the bytes of the files
that it was read from. It can say that a record is sound, so it is kept like the compiled library: in a folder that
nobody else can write to, with its own hash. Whatever is missing, damaged or others' is found again.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from hashlib import sha256
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from kernels.cpu.process import trusted

ROOT = Path(__file__).resolve().parents[1]
#: The code that answers follow from, with its recipes and templates.
CODE = ("suite", "tasks", "backbones", "kernels")
SUFFIXES = (".py", ".toml", ".j2", ".js", ".css", ".json")
#: Packages that compute or write parts of answers, and one whose presence makes mixers available.
PACKAGES = ("torch", "numpy", "scipy", "pydantic", "rich", "jinja2", "matplotlib", "gluonts", "flash-linear-attention")
#: Bytes of a file that are hashed. A larger one counts as changed each time.
MOST_BYTES = 2**25
#: Answers of a kind that are kept, the latest ones.
MOST_ANSWERS = 1000


def kept(
    kind: str,
    question: Any,
    state: Callable[[], str],
    find: Callable[[], dict[str, Any]],
    *,
    keep: Callable[[], bool] = lambda: True,
) -> dict[str, Any]:
    """The answer to a question.

    Args:
        kind: of question; the name of a folder in the cache.
        question: plain JSON values; a new answer to the same question replaces the older one.
        state: gives a digest of everything else that the answer follows from. Where it changes while the answer is
            found, the answer is not kept.
        find: finds the answer: plain JSON values by name. What it raises passes through, and is not kept.
        keep: called after `find`: whether the answer follows from nothing else.

    Returns:
        What `find` returns, or returned for the same question and state.
    """
    path, before = _path(kind, question), state()
    answer = _read(path, [question, before]) if path else None
    if answer is None:
        answer = find()
        if path and keep() and state() == before:
            _write(path, {"follows_from": _digest([question, before]), "answer": answer})
    return answer


@cache
def code(parts: tuple[str, ...] = CODE) -> str:
    """A digest of code, of Python and of the packages that it uses, as they are when this process first asks.

    Args:
        parts: files and folders of the suite.

    Returns:
        sha256, hexadecimal.
    """
    found = sha256(_digest([sys.version, os.uname().machine, [[name, _installed(name)] for name in PACKAGES]]).encode())
    for path in code_files(parts):
        found.update(str(path.relative_to(ROOT)).encode() + b"\0" + path.read_bytes() + b"\0")
    return found.hexdigest()


def code_files(parts: Iterable[str]) -> Iterator[Path]:
    """The files that `code` reads.

    Args:
        parts: files and folders of the suite.

    Yields:
        Paths in a fixed order.
    """
    for name in parts:
        place = ROOT / name
        found = [place] if place.is_file() else sorted(path for path in place.rglob("*") if path.suffix in SUFFIXES)
        yield from found


def content(paths: Iterable[Path]) -> str:
    """A digest of files: their paths, and whether each is a link, is readable, and what it holds.

    Args:
        paths: of files, existing or not.

    Returns:
        sha256, hexadecimal.
    """
    found = sha256()
    for path in paths:
        try:
            with open(path, "rb") as file:
                held = file.read(MOST_BYTES + 1)
            what = sha256(held if len(held) <= MOST_BYTES else os.urandom(32)).hexdigest()
        except OSError as error:
            what = str(error.errno)
        found.update(_digest([str(path), path.is_symlink(), what]).encode())
    return found.hexdigest()


def _digest(value: Any) -> str:
    return sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _installed(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def _path(kind: str, question: Any) -> Path | None:
    folder = trusted.lasting_folder(kind)
    return folder / f"{_digest(question)[:32]}.json" if folder else None


def _read(path: Path, follows_from: Any) -> dict[str, Any] | None:
    """The answer in a file; None where it is missing, damaged, not this user's, or follows from something else."""
    if trusted.fault(path):
        return None
    try:
        held = json.loads(path.read_text("utf-8"))
        answer = held["answer"] if held["follows_from"] == _digest(follows_from) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return answer if isinstance(answer, dict) else None


def _write(path: Path, held: dict[str, Any]) -> None:
    with contextlib.suppress(OSError):  # where nothing can be written, it is found again next time
        trusted.store(path, json.dumps(held, allow_nan=False))
        older = sorted(path.parent.glob("*.json"), key=lambda each: each.stat().st_mtime)[:-MOST_ANSWERS]
        for each in older:
            trusted.remove(each)

"""Third-party tasks as tests write them: the example task as a file or as an installed package."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tasks import registry

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "sorting.py"
NAMED = f"{EXAMPLE}:Sorting"
ENTRIES = """
sorting = sorting_tasks:Sorting
broken = sorting_tasks_broken:Broken
misdirected = sorting_tasks:Nothing
no task = sorting_tasks:torch
sotu = sorting_tasks:Sorting
"""
#: What is said about each unusable entry above.
REASONS = {
    "broken": "sorting-tasks 1.2 (sorting_tasks_broken:Broken) cannot be loaded: RuntimeError: a driver is missing",
    "misdirected": "AttributeError: module 'sorting_tasks' has no attribute 'Nothing'",
    "no task": "is not a subclass of tasks.base.Task",
    "sotu": "'sotu' is claimed by mixer-suite itself and by sorting-tasks 1.2",
}
HEAD = "class Sorting(Task):\n"
#: A user's file: its text (None: the example's), the class in it, and what the error says.
FILES = {
    "syntax error": ("class Mine(:\n", "Mine", "cannot be loaded: SyntaxError"),
    "missing import": ("import nothing_of_that_name\n", "Mine", "No module named 'nothing_of_that_name'"),
    "error of several lines": ("raise ValueError('one\\ntwo')\n", "Mine", "cannot be loaded: ValueError: one two"),
    "missing class": ("x = 1\n", "Mine", "has no class 'Mine' and no other task"),
    "misspelt class": (None, "Sortng", "has no class 'Sortng'; did you mean 'Sorting'?"),
    "another class": (None, "Zzz", "has no class 'Zzz' (tasks there: Sorting)"),
    "not a task": ("class Mine: ...\n", "Mine", "is not a subclass of tasks.base.Task"),
    "not a class": ("Mine = 3\n", "Mine", "is not a subclass of tasks.base.Task"),
    "unfinished": ("from tasks.base import Task\nclass Mine(Task): ...\n", "Mine", "lacks eval_batches, fingerprint"),
    "options that are none": (
        "from tasks.recall.mqar import Mqar\nclass Mine(Mqar):\n    Options = dict\n",
        "Mine",
        "lacks Options (a subclass of TaskOptions)",
    ),
    "unknown domain": (
        "from tasks.recall.mqar import Mqar\nclass Mine(Mqar):\n    domain = 'visoin'\n",
        "Mine",
        "unknown domain 'visoin'; did you mean 'vision'?",
    ),
}


def write_file(folder: Path, text: str | None) -> Path:
    """mine.py with this text, or the example's."""
    path = folder / "mine.py"
    path.write_text(EXAMPLE.read_text("utf-8") if text is None else text)
    return path


def write_modules(folder: Path) -> Path:
    """The modules that `ENTRIES` names: the example, and one that cannot be imported."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "sorting_tasks.py").write_text(EXAMPLE.read_text("utf-8"))
    (folder / "sorting_tasks_broken.py").write_text("raise RuntimeError('a driver\\nis missing')\n")
    return folder


def write_installed(folder: Path, name: str, version: str, entries: str) -> Path:
    """What an installer leaves of a distribution's metadata."""
    info = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    (info / "entry_points.txt").write_text(f"[suite.tasks]\n{entries}\n")
    return folder


@contextmanager
def installed_in(folder: Path) -> Iterator[Path]:
    """The distribution sorting-tasks 1.2 with `ENTRIES`, as if it were installed, in this process."""
    site = write_installed(write_modules(folder / "site"), "sorting-tasks", "1.2", ENTRIES)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(site))
        registry._entries.cache_clear()
        yield site
    registry._entries.cache_clear()
    for name in ("sorting_tasks", "sorting_tasks_broken"):
        sys.modules.pop(name, None)

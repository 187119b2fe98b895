"""The one registry of tasks: built-ins, packages with the entry-point group `suite.tasks`, and `path/file.py:Class`.

A task's module is imported when the task is used, so listing the names costs nothing.
"""

from __future__ import annotations

import ast
import difflib
import importlib.util
import inspect
import sys
from collections.abc import Iterable, Mapping
from functools import cache
from hashlib import sha256
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType

from tasks.base import DOMAINS, DataError, Task, TaskOptions

ENTRY_POINT_GROUP = "suite.tasks"
_BUILT_IN = {
    "sotu": "tasks.text.sotu:Sotu",
    "fashion-mnist": "tasks.images.fashion_mnist:FashionMnist",
    "cifar10": "tasks.images.cifar:Cifar10",
    "cifar100": "tasks.images.cifar:Cifar100",
    "imagenet100": "tasks.images.imagenet:ImageNet100",
    "imagenet1k": "tasks.images.imagenet:ImageNet1k",
    "folder": "tasks.images.own_images:OwnImages",
    "household-power": "tasks.series.forecasting:HouseholdPower",
    "wikitext2": "tasks.text.wikitext:WikiText2",
    "wikitext103": "tasks.text.wikitext:WikiText103",
    "fineweb-edu": "tasks.text.fineweb:FinewebEdu",
    "text": "tasks.text.own_text:OwnText",
    "etth1": "tasks.series.published:Etth1",
    "etth2": "tasks.series.published:Etth2",
    "ettm1": "tasks.series.published:Ettm1",
    "ettm2": "tasks.series.published:Ettm2",
    "weather": "tasks.series.published:Weather",
    "electricity": "tasks.series.published:Electricity",
    "traffic": "tasks.series.published:Traffic",
    "exchange": "tasks.series.published:Exchange",
    "solar": "tasks.series.published:Solar",
    "csv": "tasks.series.own_series:OwnSeries",
    "gluonts": "tasks.series.gluonts:GluontsSeries",
    "mqar": "tasks.recall.mqar:Mqar",
    "mad-in-context": "tasks.recall.mad_recall:MadInContext",
    "mad-noisy": "tasks.recall.mad_recall:MadNoisy",
    "mad-fuzzy": "tasks.recall.mad_recall:MadFuzzy",
    "mad-memorize": "tasks.recall.mad_memorize:MadMemorize",
    "mad-compress": "tasks.recall.mad_compress:MadCompress",
    "mad-copy": "tasks.recall.mad_copy:MadCopy",
    "parity": "tasks.recall.parity:Parity",
    "s3": "tasks.recall.word_problem:S3",
    "s5": "tasks.recall.word_problem:S5",
    "mano": "tasks.recall.mano:Mano",
}
#: What others call a task or a domain.
_OTHER_WORDS = {
    "fmnist": "fashion-mnist",
    "fashion": "fashion-mnist",
    "imagenet": "imagenet1k",
    "fineweb": "fineweb-edu",
    "wikitext": "wikitext103",
    "power": "household-power",
    "ecl": "electricity",
    "exchange-rate": "exchange",
    "associative-recall": "mqar",
    "in-context-recall": "mad-in-context",
    "word-problem": "s5",
    "mental-arithmetic": "mano",
    "text": "language",
    "images": "vision",
    "series": "forecasting",
}
_ATTRIBUTES = ("name", "domain", "summary", "protocol")  # what every task's class must define as text


class UnknownTask(DataError):
    """No task has that name. The message is one line, written for the user."""


@cache
def _entries() -> Mapping[str, tuple[EntryPoint, ...]]:
    """The entry points of installed packages by the task's name; several where packages claim the same one."""
    found: dict[str, tuple[EntryPoint, ...]] = {}
    for entry in entry_points(group=ENTRY_POINT_GROUP):
        found[entry.name] = (*found.get(entry.name, ()), entry)
    return found


def names() -> tuple[str, ...]:
    """Every registered task. A package's task may still fail to load: `get` raises the reason.

    Returns:
        The names of the built-in tasks, then those of installed packages.
    """
    return tuple(dict.fromkeys([*_BUILT_IN, *sorted(_entries())]))


def built_in(name: str) -> type[Task] | None:
    """Looks up a task without importing or reading anything that is not part of the suite.

    Args:
        name: any text.

    Returns:
        The class of the built-in task of that name, or None.
    """
    if name not in _BUILT_IN:
        return None
    module, _, class_name = _BUILT_IN[name].partition(":")
    task: type[Task] = getattr(import_module(module), class_name)
    return task


def get(name: str) -> type[Task]:
    """Loads the class of a task; third-party code is imported, and so runs.

    Args:
        name: a registered name, or `path/file.py:Class`.

    Returns:
        A complete subclass of `Task`.

    Raises:
        UnknownTask: no such task; the message suggests the nearest name.
        DataError: two packages claim the name, or the third-party class cannot be loaded or is incomplete.
    """
    if ".py:" in name:
        return _from_file(*name.rsplit(":", 1))
    entries = _entries().get(name, ())
    claims = [*(["mixer-suite itself"] if name in _BUILT_IN else []), *map(_distribution, entries)]
    if len(claims) > 1:
        raise DataError(
            f"task name {name!r} is claimed by {' and by '.join(claims)}: uninstall a package, or rename its "
            "entry point"
        )
    if entries:
        where = f"task {name!r} of {claims[0]} ({entries[0].value})"
        return _checked(_load_entry(entries[0], where), where)
    found = built_in(name)
    if found is None and name.endswith(".py"):
        raise UnknownTask(_class_missing(name))
    if found is None:
        hint = _near(name, names()) or f"; the tasks are {', '.join(names())}"
        raise UnknownTask(f"unknown task {name!r}{hint} (suite list tasks; or path/to/file.py:Class)")
    return found


def origin(name: str) -> str:
    """Where a task comes from. Imports nothing; reads a file only to hash it.

    Args:
        name: a registered name, or `path/file.py:Class`.

    Returns:
        "built-in"; the distribution and its version; or the file's name and the first 12 digits of the sha256 of its
        content.

    Raises:
        UnknownTask: the file does not exist.
    """
    if ".py:" in name:
        path = _existing(name.rpartition(":")[0])
        return f"{path.name}@{sha256(path.read_bytes()).hexdigest()[:12]}"
    if name in _BUILT_IN:
        return "built-in"
    return " and ".join(map(_distribution, _entries().get(name, ()))) or "unknown"


def _distribution(entry: EntryPoint) -> str:
    return f"{entry.dist.name} {entry.dist.version}" if entry.dist else f"entry point {entry.value}"


def _near(given: str, allowed: Iterable[str]) -> str:
    folded = {name.casefold(): name for name in reversed(list(allowed))}
    word = given.casefold()
    near = [name for name in (word, _OTHER_WORDS.get(word.replace("_", "-"), word)) if name in folded]
    near = near or difflib.get_close_matches(word, folded, n=1, cutoff=0.5)
    return f"; did you mean {folded[near[0]]!r}?" if near else ""


def _class_missing(file: str) -> str:
    """The message for a file that was given without the class in it, which is read but not executed."""
    try:
        found = ast.parse(_existing(file).read_bytes()).body
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError):
        found = []
    classes = [node for node in found if isinstance(node, ast.ClassDef) and node.bases]
    there = [node.name for node in classes if not ast.unparse(node.bases[0]).endswith(("Options", "BaseModel"))]
    which = f"; its classes: {', '.join(f'{file}:{name}' for name in there)}" if there else ", and it has none"
    return f"task {file!r} is a file without the name of a class (expected: path/to/file.py:Class){which}"


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


def _load_entry(entry: EntryPoint, where: str) -> object:
    try:
        return entry.load()
    except Exception as error:  # a package may raise anything when it is imported
        raise DataError(f"{where} cannot be loaded: {_reason(error)}") from error


def _existing(file: str) -> Path:
    path = Path(file)
    if not path.is_file():
        raise UnknownTask(f"task file {file!r} does not exist (form: path/to/file.py:Class)")
    return path


def _from_file(file: str, class_name: str) -> type[Task]:
    module = _load_file(_existing(file), file)
    found = getattr(module, class_name, None)
    if found is None:
        there = [
            name for name, value in vars(module).items() if _is_task(value) and value.__module__ == module.__name__
        ]
        hint = _near(class_name, there) or (f" (tasks there: {', '.join(there)})" if there else " and no other task")
        raise UnknownTask(f"task file {file!r} has no class {class_name!r}{hint}")
    return _checked(found, f"{file}:{class_name}")


def _load_file(path: Path, file: str) -> ModuleType:
    """The module of a file, executed once per process. pydantic looks it up in `sys.modules` to resolve annotations."""
    module_name = f"_task_file_{sha256(str(path.resolve()).encode()).hexdigest()[:12]}"
    if module_name not in sys.modules:
        spec = importlib.util.spec_from_file_location(module_name, path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[module_name] = module
        try:
            spec.loader.exec_module(module)
        except Exception as error:  # a user's file may raise anything
            del sys.modules[module_name]
            raise DataError(f"task file {file!r} cannot be loaded: {_reason(error)}") from error
    return sys.modules[module_name]


def _is_task(value: object) -> bool:
    return inspect.isclass(value) and issubclass(value, Task)


def _checked(candidate: object, where: str) -> type[Task]:
    """The candidate, if it is a class of a task with everything that the suite reads from the class alone."""
    if not (isinstance(candidate, type) and issubclass(candidate, Task)):
        raise DataError(f"{where} is not a subclass of tasks.base.Task")
    missing = sorted(getattr(candidate, "__abstractmethods__", ()))
    missing += [name for name in _ATTRIBUTES if not isinstance(getattr(candidate, name, None), str)]
    if not (isinstance(candidate.Options, type) and issubclass(candidate.Options, TaskOptions)):
        missing.append("Options (a subclass of TaskOptions)")
    if missing:
        raise DataError(f"{where} lacks {', '.join(missing)}: every task defines them (docs/adding-a-task.md)")
    if candidate.domain not in DOMAINS:
        hint = _near(candidate.domain, DOMAINS)
        raise DataError(f"{where}: unknown domain {candidate.domain!r}{hint} (allowed: {', '.join(DOMAINS)})")
    return candidate

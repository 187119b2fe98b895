"""The tasks by name. A task's module is imported when it is asked for, so that listing names costs nothing."""

from __future__ import annotations

import difflib
from importlib import import_module

from tasks.base import DataError, Task

_TASKS = {
    "sotu": "tasks.language:Sotu",
    "fashion-mnist": "tasks.vision:FashionMnist",
    "cifar10": "tasks.cifar:Cifar10",
    "cifar100": "tasks.cifar:Cifar100",
    "imagenet100": "tasks.imagenet:ImageNet100",
    "imagenet1k": "tasks.imagenet:ImageNet1k",
    "folder": "tasks.own_images:OwnImages",
    "household-power": "tasks.forecasting:HouseholdPower",
    "wikitext2": "tasks.wikitext:WikiText2",
    "wikitext103": "tasks.wikitext:WikiText103",
    "fineweb-edu": "tasks.fineweb:FinewebEdu",
    "text": "tasks.own_text:OwnText",
    "etth1": "tasks.published_series:Etth1",
    "etth2": "tasks.published_series:Etth2",
    "ettm1": "tasks.published_series:Ettm1",
    "ettm2": "tasks.published_series:Ettm2",
    "weather": "tasks.published_series:Weather",
    "electricity": "tasks.published_series:Electricity",
    "traffic": "tasks.published_series:Traffic",
    "exchange": "tasks.published_series:Exchange",
    "solar": "tasks.published_series:Solar",
    "csv": "tasks.own_series:OwnSeries",
    "gluonts": "tasks.gluonts_series:GluontsSeries",
    "mqar": "tasks.mqar:Mqar",
    "mad-in-context": "tasks.mad_recall:MadInContext",
    "mad-noisy": "tasks.mad_recall:MadNoisy",
    "mad-fuzzy": "tasks.mad_recall:MadFuzzy",
    "mad-memorize": "tasks.mad_memorize:MadMemorize",
    "mad-compress": "tasks.mad_compress:MadCompress",
    "mad-copy": "tasks.mad_copy:MadCopy",
}


class UnknownTask(DataError):
    """No task of that name. The message is one line for the user."""


def names() -> tuple[str, ...]:
    """Every task, by name."""
    return tuple(_TASKS)


def get(name: str) -> type[Task]:
    """The class of a task. Raises UnknownTask with the nearest valid name."""
    if name not in _TASKS:
        near = difflib.get_close_matches(name, _TASKS, n=1, cutoff=0.5)
        hint = f"; did you mean {near[0]!r}?" if near else f"; there are {', '.join(_TASKS)}"
        raise UnknownTask(f"unknown task {name!r}{hint} (suite list tasks)")
    module, _, class_name = _TASKS[name].partition(":")
    task: type[Task] = getattr(import_module(module), class_name)
    return task

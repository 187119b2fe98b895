"""The tasks by name. A task's module is imported when it is asked for, so that listing names costs nothing."""

from __future__ import annotations

import difflib
from importlib import import_module

from tasks.base import DataError, Task

_TASKS = {
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

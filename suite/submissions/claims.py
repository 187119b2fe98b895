"""Checks of a single record that reading it leaves out: what belongs on a board, and what a figure can be."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

import tasks
from suite.boards.naming import deviations
from suite.config.identity import canonical_json
from suite.config.run_config import BUILT_IN, TRAINING_VERSION
from suite.models.baseline_candidate import ORIGIN as BASELINE
from suite.records.checks.result_faults import differs
from suite.records.schema import Record
from suite.safe_text import quoted, visible
from suite.submissions.entry import PLAIN
from suite.submissions.faults import Check
from tasks.base import Task
from tasks.embedded.packaged import PackagedTask

Found = Iterator[tuple[str, Check]]
#: Metrics in other units than the loss may be larger.
MOST, MOST_PERPLEXITY = 1e9, 1e300
#: Bytes of a parameter in memory.
PARAMETER_BYTES = 4
CLOCK_SKEW = timedelta(days=1)
#: The loss of an untrained model is at least that of guessing; on a single batch, it may be lower by chance.
LEAST_OF_GUESSING = 0.5
FILE_MIXER = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]*\.py:[A-Za-z_][A-Za-z0-9_]*$")
REGISTERED = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._/-]*$")
FILE_ORIGIN = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]*\.py@[0-9a-f]{12}$")


def record_faults(made: Record) -> Found:
    """What is wrong with a record that was read, as a part of an entry.

    Args:
        made: a record that agrees with itself.

    Yields:
        One line per fault, beginning with the field's dotted name, and the check that finds it.
    """
    yield from ((message, "ranges") for message in _of_names(made))
    yield from ((message, "ranges") for message in _of_times(made))
    yield from ((message, "ranges") for message in _of_figures(made))
    yield from ((message, "recount") for message in _of_board(made))
    yield from ((message, "recount") for message in _of_data(made))


def _of_names(made: Record) -> Iterator[str]:
    """Boards escape what they show; an entry has no reason to need it."""
    if not re.match(PLAIN, made.id):
        yield f"id: {quoted(made.id)} is not of letters, digits, '.', '_' and '-'"
    if not (FILE_MIXER.match(made.mixer) or REGISTERED.match(made.mixer)):
        yield f"mixer: {quoted(made.mixer)} is neither a registered name nor file.py:Class"
    if ".py:" in made.mixer and not FILE_ORIGIN.match(made.config.mixer_origin):
        yield f"config.mixer_origin: {quoted(made.config.mixer_origin)} is not file.py@HASH"
    for where, text in _texts({**made.content(), "loss_trace": None}):
        if visible(text) != text:
            yield f"{where}: {quoted(text)} has control characters"


def _texts(value: Any, where: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield where or "content", key
            yield from _texts(inner, f"{where}.{key}" if where else key)
    elif isinstance(value, list):
        for inner in value:
            yield from _texts(inner, where)
    elif isinstance(value, str):
        yield where, value


def _of_times(made: Record) -> Iterator[str]:
    if datetime.fromisoformat(made.created) > datetime.now(UTC) + CLOCK_SKEW:
        yield f"created: {made.created} is in the future"
    timing = made.timing
    if timing is None:
        return
    parts = timing.step_s + timing.data_s + timing.evaluation_s + timing.bookkeeping_s
    if parts > timing.wall_s * (1 + 1e-6):
        yield f"timing.wall_s: {timing.wall_s:g} is less than the sum of its parts, {parts:g}"


def _of_figures(made: Record) -> Iterator[str]:
    least = PARAMETER_BYTES * made.certificate.total_parameters
    if made.config.mixer_origin != BASELINE and made.peak_memory_bytes < least:
        yield f"peak_memory_bytes: {made.peak_memory_bytes} is less than the parameters take, {least}"
    for split, values in made.metrics.items():
        for name, value in values.items():
            most = MOST_PERPLEXITY if name == "perplexity" else MOST
            if not value <= most:
                yield f"metrics.{split}.{name}: {value:g} is more than {most:g}"
    yield from _of_accuracy(made)
    yield from _of_first_loss(made)


def _of_accuracy(made: Record) -> Iterator[str]:
    """The fraction of images that are classified correctly is a number of images."""
    if made.domain != "vision":
        return
    evaluated = {str(split): count for split, count in made.n_evaluated.items()}
    for split, values in made.metrics.items():
        examples = evaluated.get(split.partition("_")[0], 0)
        for name in ("top1", "top5"):
            correct = values.get(name, 0.0) * examples
            if abs(correct - round(correct)) > 1e-3:
                yield f"metrics.{split}.{name}: {values[name]!r} is no fraction of {examples} images"


def _of_first_loss(made: Record) -> Iterator[str]:
    """Of classification, a model that has learned nothing is not better than a guess among all classes."""
    classes = getattr(made.spec, "vocab", 0) or getattr(made.spec, "classes", 0)
    if not made.loss_trace or classes < 2 or made.config.mixer_origin == BASELINE:
        return
    step, loss = made.loss_trace[0]
    least = LEAST_OF_GUESSING * math.log(classes)
    if step == 1 and loss < least:
        yield f"loss_trace: the first loss, {loss:g}, is below that of an untrained model (at least {least:.3g})"


def _of_board(made: Record) -> Iterator[str]:
    """Only runs of the recipe, from a clean commit, can have a rank."""
    if made.status not in ("finished", "diverged"):
        yield f"status: a run that is {made.status} has no result to submit"
    current = tasks.built_in(made.task)
    if current is None:
        yield f"task: {quoted(made.task)} does not ship with the suite, so it has no published board"
        return
    is_current = (made.versions.task, made.versions.training) == (current.version, TRAINING_VERSION)
    differing = [each for each in deviations(made) if not each.startswith("data ")] if is_current else []
    if differing:
        yield f"config: it deviates from the recipe of {made.task} at {made.scale}: {', '.join(differing)}"
    if made.code.git_dirty:
        yield "code.git_dirty: the suite's own files were changed, so its row never ranks"


def _of_data(made: Record) -> Iterator[str]:
    """The data of tasks that need no download are read here and compared."""
    found = tasks.built_in(made.task)
    if found is None or made.config.task_origin != BUILT_IN or found.version != made.versions.task:
        return
    yield from differs("data.protocol", made.data.protocol, found.protocol, "its task")
    own = made.data.model_dump(mode="json")
    for (name, key), value in _described(made.task, canonical_json(made.config.data.model_dump(mode="json"))).items():
        recorded = own[name].get(key) if key else own[name]
        yield from differs(f"data.{name}{f'.{key}' if key else ''}", recorded, value, "the data of the task")


@cache
def _described(name: str, options: str) -> dict[tuple[str, str], Any]:
    """What a record must say of a task's data, by field and key: all of it for data that ship with the suite or follow
    a rule, and for images in files the list of their classes.
    """
    found = tasks.built_in(name)
    assert found is not None
    task = found(found.Options.model_validate(json.loads(options)))
    if found.domain == "vision" and not _is_here(task):
        return {("details", key): value for key, value in task.info().extra.items() if key.startswith("class_list")}
    if not _is_here(task):
        return {}
    info = task.info()
    plain = json.loads(canonical_json({"splits": dict(info.splits), "details": dict(info.extra)}))
    content = {"fingerprint": task.fingerprint, "source": info.source, "unit": info.unit, **plain}
    return {(key, ""): value for key, value in content.items()}


def _is_here(task: Task) -> bool:
    return task.synthetic or isinstance(task, PackagedTask)

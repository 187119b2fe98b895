"""Options that change nothing for a mixer on a task. They are refused: who gives an option expects an effect, and a
table with two equal rows of different names would be wrong.

What decides the board that a run is on (the shape of a baseline's reference, say) has an effect.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path

import tasks
from suite.config.run_config import BUILT_IN, RunConfig
from suite.errors import UserError
from suite.models.candidate import Candidate
from suite.models.resolve_defaults import default_options
from tasks.base import Task

HYBRID = "hybrid"


def idle_options(config: RunConfig, candidate: Candidate, task: Task) -> dict[str, str]:
    """The options that change nothing, whatever their value.

    Args:
        config: the run.
        candidate: its mixer.
        task: its task; no data are needed.

    Returns:
        By `section.name`, or `hybrid`, why it changes nothing.
    """
    found = dict(_of_model(config, task))
    if not candidate.hybrids:
        found["model.canon"] = "it has no mixer layers"
    found |= {f"mixer.{name}": reason for name, reason in candidate.idle_options(config.mixer_options).items()}
    found |= {f"data.{name}": reason for name, reason in task.idle_options().items()}
    found |= {f"train.{name}": reason for name, reason in candidate.idle_training.items()}
    is_softmax = candidate.origin == BUILT_IN and candidate.name == "softmax"
    if is_softmax and config.mixer_options == default_options(config, candidate):
        found[HYBRID] = "every layer is the reference's softmax already"
    return found


def refuse_idle(config: RunConfig, candidate: Candidate, task: Task, named: Collection[str]) -> None:
    """Refuses options that change nothing.

    Args:
        config: the run.
        candidate: its mixer.
        task: its task.
        named: the options that the user gave, as `section.name` or `hybrid`.

    Raises:
        UserError: names the first one, why it changes nothing, and what to do.
    """
    for name, reason in idle_options(config, candidate, task).items():
        if name in named:
            given = "--hybrid" if name == HYBRID else f"{name}={_value(config, name)}"
            what = f"task {config.task!r} with mixer {candidate.name!r}"
            raise UserError(f"{given} changes nothing for {what}: {reason}; leave it out")


def refuse_unread_folder(name: str, data_dir: Path | None) -> None:
    """Refuses a folder of data that the task would not read.

    Args:
        name: the task.
        data_dir: as it was given.

    Raises:
        UserError: the task's data are embedded or drawn by a rule.
        DataError: there is no such task.
    """
    if data_dir is None or tasks.origin(name) != BUILT_IN:
        return
    task = tasks.get(name)
    if not task.needs_data_dir:
        data = "draws its data by a rule" if task.synthetic else "has its data with the suite"
        raise UserError(f"--data-dir {str(data_dir)[:80]} changes nothing: task {name!r} {data}; leave it out")


def _of_model(config: RunConfig, task: Task) -> Iterator[tuple[str, str]]:
    kind = task.spec.kind
    if kind != "text":
        yield "model.embedding_std", "only models of text and recall embed tokens"
    if kind != "series":
        yield "model.head_scale", "only forecasters have a head that it scales"
    if config.model.depth == 1:
        yield "model.drop_path", "the rate rises from 0 at the first layer, and there is only one (model.depth=1)"


def _value(config: RunConfig, name: str) -> object:
    section, _, option = name.partition(".")
    return getattr(getattr(config, {"mixer": "mixer_options"}.get(section, section)), option)

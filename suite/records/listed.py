"""All runs of the runs folder as rows of a list, damaged ones included. Imports no mixer and loads no weights."""

from __future__ import annotations

import pickletools
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal, TypeVar, get_args

from suite.errors import UserError
from suite.records import record, runs_folder
from suite.records.schema import Record, Status

ListedStatus = Literal[Status, "running", "stopped", "damaged"]
STATUSES: tuple[str, ...] = tuple(value for part in get_args(ListedStatus) for value in get_args(part) or (part,))
T = TypeVar("T")
CHECKPOINT = "checkpoint.pt"  # the newest one; `suite.training.checkpoint` writes it
OF_SEVERAL = "checkpoint-*.dcp/content.pt"  # where several processes wrote it


@dataclass(frozen=True)
class ListedRun:
    """A run of the list.

    status: of its record; without one `running` or `stopped`; `damaged` where its config or record cannot be relied on.
    step: the last one that was recorded or that a checkpoint has; None where there is neither.
    steps: of the whole run; None where its config cannot be read.
    made: its record.
    resume: the command that continues it, or None.
    reason: why it is damaged or how it ended, in one line; else empty.
    """

    id: str
    status: str
    task: str | None
    mixer: str | None
    scale: str | None
    seed: int | None
    created: str | None
    step: int | None
    steps: int | None
    made: Record | None
    resume: str | None
    reason: str = ""


def listed_runs(task: str | None = None, status: str | None = None) -> list[ListedRun]:
    """Reads every run of the runs folder.

    Args:
        task: only runs of this task.
        status: only runs with this status.

    Returns:
        The newest run first.
    """
    folders = runs_folder.all_runs()
    found = (_listed(folder, folders) for folder in reversed(folders))
    return [each for each in found if task in (None, each.task) and status in (None, each.status)]


def _listed(folder: Path, known: list[Path]) -> ListedRun:
    content, made, faults = {}, None, list[str]()
    try:
        content = runs_folder.read_run(folder)
    except UserError as error:
        faults.append(str(error))
    try:
        made = record.read(folder / record.NAME) if (folder / record.NAME).exists() else None
    except record.RecordError as error:
        faults.append(str(error))
    config = content.get("config", {})
    train = config.get("train", {})
    status = _status(folder, made, damaged=bool(faults))
    texts = {name: _of_type(config.get(name), str) for name in ("task", "mixer", "scale")}
    continues = status in ("interrupted", "failed", "stopped") and _checkpoint(folder).is_file()
    return ListedRun(
        id=folder.name,
        status=status,
        **({name: getattr(made, name) for name in texts} if made else texts),
        seed=_of_type(config.get("seed"), int),
        created=_of_type(content.get("created"), str),
        step=_step(folder, made),
        steps=made.config.train.steps
        if made
        else _of_type(train.get("steps") if isinstance(train, dict) else None, int),
        made=made,
        resume=f"suite run --resume {runs_folder.short_name(folder, known)}" if continues else None,
        reason=" ".join("; ".join(faults).split()) or (made.error or "" if made else ""),
    )


def _status(folder: Path, made: Record | None, *, damaged: bool) -> str:
    if runs_folder.is_running(folder):
        return "running"
    if damaged:
        return "damaged"
    return made.status if made else "stopped"


def _of_type(value: object, kind: type[T]) -> T | None:
    return value if isinstance(value, kind) and not isinstance(value, bool) else None


def _step(folder: Path, made: Record | None) -> int | None:
    if made and made.status == "finished":
        return made.config.train.steps
    return max((step for step in (_of_trace(made), step_of_checkpoint(_checkpoint(folder))) if step), default=None)


def _checkpoint(folder: Path) -> Path:
    """The file of the newest checkpoint, which may be missing."""
    of_several = sorted(folder.glob(OF_SEVERAL))
    return of_several[-1] if of_several and not (folder / CHECKPOINT).is_file() else folder / CHECKPOINT


def _of_trace(made: Record | None) -> int | None:
    return made.loss_trace[-1][0] if made and made.loss_trace else None


def step_of_checkpoint(path: Path) -> int | None:
    """The step of a checkpoint, without PyTorch and without executing the file: the first value called `step`.

    Args:
        path: of a checkpoint.

    Returns:
        The step, or None where the file is missing or damaged.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            name = next(name for name in archive.namelist() if name.endswith("/data.pkl"))
            with archive.open(name) as file:
                return next(_values_of(file, "step"), None)
    except (OSError, ValueError, StopIteration, zipfile.BadZipFile):
        return None


def _values_of(pickled: IO[bytes], key: str) -> Iterator[int]:
    """Integers that directly follow a text in a pickle, which is read but not executed."""
    before = None
    for opcode, value, _ in pickletools.genops(pickled):
        if before == key and opcode.name.startswith("BININT") and isinstance(value, int):
            yield value
        if not opcode.name.endswith(("PUT", "MEMOIZE")):
            before = value

"""The job of a run that continues at a checkpoint, after what it needs is checked to be as before."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import tasks
from suite.console import warn
from suite.errors import UserError
from suite.models.written import resolve_written
from suite.records import record, runs_folder
from suite.training import checkpoint
from suite.training.execution import build_model
from suite.training.job import Job
from suite.training.loop.observer import Observer
from suite.training.parallel.ranks import Ranks
from suite.training.prepared.jobs import make_job, require_enough_memory, require_trainable, usable_device


def resumed_job(
    folder: Path,
    data_dir: Path | None,
    device: str,
    observer: Observer | None,
    commanded: float,
    *,
    pictures: bool,
    scratch: bool,
    ranks: Ranks,
) -> Job:
    """The job at its newest undamaged checkpoint.

    Args:
        folder: of the run.
        data_dir: where its data are now; None: where they were.
        device: of the same kind as the one that it started on.
        observer: receives warnings; None: the terminal.
        commanded: when the command began, on the monotonic clock.
        pictures: whether pictures of the trained model are drawn.
        scratch: whether it may start from scratch where it has no undamaged checkpoint.
        ranks: of the job.

    Returns:
        The job.

    Raises:
        UserError: as for `suite.training.run.resume`.
        DataError: its data are missing or damaged.
        MixerError: its mixer no longer exists.
    """
    report = observer.warn if observer else warn
    _set_unreadable_record_aside(folder, report)
    if (made := runs_folder.ended(folder)) and made.status == "finished":
        raise UserError(f"run {folder.name} is finished; there is nothing to resume")
    written = runs_folder.read_run(folder)
    resolved = resolve_written(written["config"])
    config, candidate = resolved.config, resolved.candidate
    data_dir = data_dir or (Path(written["data_dir"]) if written["data_dir"] else None)
    chosen = usable_device(device, candidate)
    try:
        state = checkpoint.load(folder, chosen, report)
    except checkpoint.NoCheckpoint as problem:
        if not scratch:
            raise
        report(f"{problem.reason}; it starts from scratch")
        state = None
    if state and state["identity"] != config.identity:
        raise UserError(f"run {folder.name}: its checkpoint belongs to another config; start it again")
    task = tasks.get(config.task)(config.data, data_dir)
    if state:
        task.use_files(folder)
    checked = candidate.check(config, task.spec)
    require_enough_memory(config, checked[1], chosen, ranks)  # there may be fewer ranks than before
    ranks.shard.rows(config.train.batch_size)
    task.load()
    require_trainable(config, candidate, task, checked[0], ranks)
    if not state:
        task.keep_files(folder)
    created = written["created"]
    job = make_job(config, candidate, folder, task, chosen, checked, created, commanded, pictures, state, ranks)
    if state:
        _require_unchanged(job, state)
    return job


def _set_unreadable_record_aside(folder: Path, report: Callable[[str], None]) -> None:
    """A record that cannot be relied on counts as none: the resumed run writes another."""
    path = folder / record.NAME
    try:
        if path.exists():
            record.read(path)
    except record.RecordError as problem:
        aside = path.with_name("record.unreadable.json")
        report(f"{problem}; the run counts as not finished, and the file is kept as {aside.name}")
        path.replace(aside)


def _require_unchanged(job: Job, state: dict[str, Any]) -> None:
    """Raises UserError where the run would not continue as it began."""
    for what, before in state["origin"].items():
        if job.origin()[what] != before:
            raise UserError(
                f"run {job.folder.name} cannot be resumed: its {what} was {before}, now it is {job.origin()[what]}; "
                "start it again"
            )
    if build_model(job).state_dict().keys() != state["model"].keys():
        raise UserError(
            f"run {job.folder.name} cannot be resumed: another version started it, whose model has other parameters; "
            "start it again"
        )

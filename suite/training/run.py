"""One run from its config to its record: started, or resumed at its last checkpoint."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

import tasks
from suite.config.run_config import RunConfig
from suite.console import say, warn
from suite.errors import UserError
from suite.models.budget import Plan
from suite.models.candidate import Candidate, parse
from suite.models.certificate import Certificate
from suite.models.memory import require_memory
from suite.models.written import resolve_written
from suite.records import provenance, record, runs_folder
from suite.training import checkpoint
from suite.training.deterministic import mode
from suite.training.devices import pick_device
from suite.training.execution import build_model, carry_out
from suite.training.job import Job, describe_data
from suite.training.outcome import Outcome
from suite.training.signals import Stop
from suite.training.trainer import Observer
from tasks.base import Task


def start(
    config: RunConfig,
    *,
    data_dir: Path | None,
    device: str,
    candidate: Candidate | None = None,
    observer: Observer | None = None,
    stop: Stop | None = None,
    again: bool = False,
    commanded: float | None = None,
    pictures: bool = True,
) -> Outcome:
    """Runs a config to its record.

    Args:
        config: the run; the widths that it leaves open are solved.
        data_dir: folder or file of the task's data, where the task needs one.
        device: `auto`, `cpu` or `cuda:N`.
        candidate: what `config.mixer` names, where the caller has looked it up.
        observer: called as the run trains, instead of a progress bar on the terminal.
        stop: asks the run to stop, instead of signals, whose handlers need the main thread.
        again: runs it although another process is running the same config.
        commanded: when the command began that asks for the run, as `time.monotonic()` gives it; None: now.
        pictures: draws attention maps and examples of the trained model, and times its decoding: about a second.

    Returns:
        The record, its file, and the exit code. A run that fails while it trains has a record too.

    Raises:
        UserError: the device, the budget or the runs folder does not allow the run, or another process runs it;
            nothing has started.
        DataError: the data are missing or damaged.
        MixerError: there is no such mixer.
    """
    commanded = commanded or time.monotonic()
    candidate = candidate or parse(config.mixer)
    chosen = _usable_device(device, candidate)
    task = tasks.get(config.task)(config.data, data_dir)
    plan, certificate = candidate.check(config, task.spec)
    require_memory(config, certificate, chosen)
    config = config.model_copy(update={"mixer_options": plan.mixer_options})
    runs_folder.writable_home()
    if not again:
        runs_folder.refuse_second(config.identity)  # before the data are read
    say(task.prepare_note())
    task.load()
    if config.train.accumulate > 1:
        _require_no_batch_statistics(candidate.build(config, task, plan))
    with runs_folder.locked_new_run(config, data_dir, again=again, deterministic=mode.active()) as folder:
        task.keep_files(folder)
        created = runs_folder.read_run(folder)["created"]
        job = _job(config, candidate, folder, task, chosen, (plan, certificate), created, commanded, pictures)
        return carry_out(job, observer, stop)


def resume(
    run: str,
    *,
    data_dir: Path | None,
    device: str,
    observer: Observer | None = None,
    stop: Stop | None = None,
    commanded: float | None = None,
) -> Outcome:
    """Continues a run at its last checkpoint.

    Args:
        run: its id, any unique part of it, its folder, or `latest`.
        data_dir: where its data are now; None: where they were.
        device: of the same kind as the one that it started on.
        observer: as for `start`.
        stop: as for `start`.
        commanded: as for `start`.

    Returns:
        As for `start`.

    Raises:
        UserError: the run is finished, unknown, running elsewhere, has no undamaged checkpoint, or no longer has the
            same data, code or device.
        DataError: the data are missing or damaged.
        MixerError: its mixer no longer exists.
    """
    commanded, folder = commanded or time.monotonic(), runs_folder.find_run(run)
    with runs_folder.locked(folder), mode.as_begun(folder):
        job = _resumed_job(folder, data_dir, device, observer, commanded, pictures=True, scratch=False)
        return carry_out(job, observer, stop)


def resume_newest(
    config: RunConfig | None,
    *,
    data_dir: Path | None,
    device: str,
    candidate: Candidate | None = None,
    observer: Observer | None = None,
    stop: Stop | None = None,
    commanded: float | None = None,
    pictures: bool = True,
) -> Outcome:
    """Continues the newest stopped run at its newest undamaged checkpoint, or from scratch where it has none.

    Args:
        config: only runs of this config; it starts where there is none. None: any run.
        data_dir: as for `start` and `resume`.
        device: as for `start` and `resume`.
        candidate: as for `start`.
        observer: as for `start`.
        stop: as for `start`.
        commanded: as for `start`.
        pictures: as for `start`.

    Returns:
        As for `start`; of a config whose newest run has ended, the record of that run.

    Raises:
        UserError: there is no stopped run, or as for `start` and `resume`.
        DataError: the data are missing or damaged.
        MixerError: there is no such mixer.
    """
    commanded = commanded or time.monotonic()
    identity = _solved(config, candidate, data_dir).identity if config else None
    stopped = [
        folder
        for folder in runs_folder.stopped(identity)
        if config is None or runs_folder.began_deterministic(folder) == mode.active()
    ]
    if config is not None and identity is not None:
        ended = runs_folder.newest_ended(identity, deterministic=mode.active())
        if ended and (not stopped or ended[1].parent.name > stopped[0].name):
            say(f"run {ended[0].id} with this config has ended ({ended[0].status}); there is nothing to resume")
            return Outcome(*ended, 0 if ended[0].status == "finished" else 1)
        if not stopped:
            return start(
                config,
                data_dir=data_dir,
                device=device,
                candidate=candidate,
                observer=observer,
                stop=stop,
                commanded=commanded,
                pictures=pictures,
            )
    if not stopped:
        raise UserError(f"no stopped run in {runs_folder.home()}; name a task and a mixer to start one")
    folder = next((folder for folder in stopped if config and checkpoint.files(folder)), stopped[0])
    with runs_folder.locked(folder), mode.as_begun(folder):
        job = _resumed_job(folder, data_dir, device, observer, commanded, pictures=pictures, scratch=True)
        return carry_out(job, observer, stop)


def _solved(config: RunConfig, candidate: Candidate | None, data_dir: Path | None) -> RunConfig:
    """The config with the widths that it leaves open, as `start` runs it."""
    task = tasks.get(config.task)(config.data, data_dir)
    plan, _ = (candidate or parse(config.mixer)).check(config, task.spec)
    return config.model_copy(update={"mixer_options": plan.mixer_options})


def _usable_device(name: str, candidate: Candidate) -> torch.device:
    device = pick_device(name)
    if obstacle := candidate.obstacle(device):
        raise UserError(obstacle)
    if mode.active() and candidate.name.startswith("fla/") and ".py:" not in candidate.name:
        raise UserError(
            f"mixer {candidate.name!r} is not deterministic: flash-linear-attention times block sizes to choose one, "
            "which changes the order of sums; leave out --deterministic (docs/determinism.md)"
        )
    return device


def _job(
    config: RunConfig,
    candidate: Candidate,
    folder: Path,
    task: Task,
    device: torch.device,
    checked: tuple[Plan, Certificate],
    created: str,
    commanded: float,
    pictures: bool,
    resume: dict[str, Any] | None = None,
) -> Job:
    """The job of a loaded task; `resume` is the checkpoint's content."""
    return Job(
        config,
        candidate,
        folder,
        task,
        device,
        *checked,
        created,
        provenance.code(tasks.origin(config.task), candidate.origin),
        provenance.hardware(device),
        describe_data(task),
        commanded,
        pictures,
        resume=resume,
        resumed_at=[*resume["resumed_at"], int(resume["step"])] if resume else [],
    )


def _resumed_job(
    folder: Path,
    data_dir: Path | None,
    device: str,
    observer: Observer | None,
    commanded: float,
    *,
    pictures: bool,
    scratch: bool,
) -> Job:
    """The job at its newest undamaged checkpoint; without one, from `scratch` if that is allowed."""
    report = observer.warn if observer else warn
    _set_unreadable_record_aside(folder, report)
    if (made := runs_folder.ended(folder)) and made.status == "finished":
        raise UserError(f"run {folder.name} is finished; there is nothing to resume")
    written = runs_folder.read_run(folder)
    resolved = resolve_written(written["config"])
    config, candidate = resolved.config, resolved.candidate
    data_dir = data_dir or (Path(written["data_dir"]) if written["data_dir"] else None)
    chosen = _usable_device(device, candidate)
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
    task.load()
    if not state:
        task.keep_files(folder)
    job = _job(config, candidate, folder, task, chosen, checked, written["created"], commanded, pictures, state)
    if state:
        _require_unchanged(job, state)
    return job


def _require_no_batch_statistics(model: nn.Module) -> None:
    """Raises UserError for a model that would compute something else on the parts of a batch than on the whole."""
    if any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in model.modules()):
        raise UserError(
            "train.accumulate: this model normalises by the mean and deviation of the whole batch, so its parts would "
            "give another result; leave accumulate at 1, or lower batch_size"
        )


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

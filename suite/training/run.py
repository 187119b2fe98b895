"""One run from its config to its record: started, or resumed at its last checkpoint."""

from __future__ import annotations

import time
from pathlib import Path

import tasks
from suite.config.run_config import RunConfig
from suite.console import say
from suite.errors import UserError
from suite.models.candidate import Candidate, parse
from suite.records import runs_folder
from suite.training import checkpoint
from suite.training.deterministic import mode
from suite.training.execution import carry_out
from suite.training.loop.observer import Observer
from suite.training.outcome import Outcome
from suite.training.parallel.ranks import ALONE, Ranks
from suite.training.prepared.jobs import make_job, require_enough_memory, require_trainable, solved, usable_device
from suite.training.prepared.resumed import resumed_job
from suite.training.signals import Stop


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
    ranks: Ranks = ALONE,
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
        ranks: of the job in which this process is rank 0.

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
    chosen = usable_device(device, candidate)
    task = tasks.get(config.task)(config.data, data_dir)
    plan, certificate = candidate.check(config, task.spec)
    require_enough_memory(config, certificate, chosen, ranks)
    config = config.model_copy(update={"mixer_options": plan.mixer_options})
    runs_folder.writable_home()
    if not again:
        runs_folder.refuse_second(config.identity)  # before the data are read
    ranks.shard.rows(config.train.batch_size)  # refuses a batch that cannot be divided
    say(task.prepare_note())
    task.load()
    require_trainable(config, candidate, task, plan, ranks)
    with runs_folder.locked_new_run(config, data_dir, again=again, deterministic=mode.active()) as folder:
        task.keep_files(folder)
        created = runs_folder.read_run(folder)["created"]
        checked = (plan, certificate)
        job = make_job(config, candidate, folder, task, chosen, checked, created, commanded, pictures, ranks=ranks)
        return carry_out(job, observer, stop)


def resume(
    run: str,
    *,
    data_dir: Path | None,
    device: str,
    observer: Observer | None = None,
    stop: Stop | None = None,
    commanded: float | None = None,
    ranks: Ranks = ALONE,
) -> Outcome:
    """Continues a run at its last checkpoint.

    Args:
        run: its id, any unique part of it, its folder, or `latest`.
        data_dir: where its data are now; None: where they were.
        device: of the same kind as the one that it started on.
        observer: as for `start`.
        stop: as for `start`.
        commanded: as for `start`.
        ranks: as for `start`; the run may have had another number of them.

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
        job = resumed_job(folder, data_dir, device, observer, commanded, pictures=True, scratch=False, ranks=ranks)
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
    ranks: Ranks = ALONE,
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
        ranks: as for `resume`.

    Returns:
        As for `start`; of a config whose newest run has ended, the record of that run.

    Raises:
        UserError: there is no stopped run, or as for `start` and `resume`.
        DataError: the data are missing or damaged.
        MixerError: there is no such mixer.
    """
    commanded = commanded or time.monotonic()
    identity = solved(config, candidate, data_dir).identity if config else None
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
                ranks=ranks,
            )
    if not stopped:
        raise UserError(f"no stopped run in {runs_folder.home()}; name a task and a mixer to start one")
    folder = next((folder for folder in stopped if config and checkpoint.files(folder)), stopped[0])
    with runs_folder.locked(folder), mode.as_begun(folder):
        job = resumed_job(folder, data_dir, device, observer, commanded, pictures=pictures, scratch=True, ranks=ranks)
        return carry_out(job, observer, stop)

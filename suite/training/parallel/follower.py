"""What every rank but the first does: its part of the run that rank 0 carries out. It writes nothing but its errors."""

from __future__ import annotations

import time
from pathlib import Path

import torch

import tasks
from suite.errors import UserError, first_line
from suite.models.written import resolve_written
from suite.records import runs_folder
from suite.training import checkpoint
from suite.training.deterministic import mode
from suite.training.devices import pick_device
from suite.training.execution import LOSS_S, Orders, code_of, take_part
from suite.training.parallel.ranks import Ranks
from suite.training.prepared.jobs import make_job


def follow(ranks: Ranks, *, device: str, data_dir: Path | None) -> int:
    """Waits for rank 0's run and takes part in it.

    Args:
        ranks: of the job.
        device: of this rank.
        data_dir: as given to all ranks.

    Returns:
        The exit code: 0 unless this rank itself failed, since rank 0 reports the run's.

    Raises:
        UserError: this rank cannot take part.
        DataError: its data are missing or damaged.
        MixerError: it has no such mixer.
    """
    try:
        orders: Orders | None = ranks.announce()
    except RuntimeError as problem:  # a collective operation with a process that is gone
        raise UserError(ranks.loss(LOSS_S) or first_line(problem)) from None
    if orders is None:
        return 0
    folder = orders.folder
    if not folder.is_dir():
        raise UserError(f"rank {ranks.rank} cannot see the run's folder {folder}; all ranks must share SUITE_HOME")
    written = runs_folder.read_run(folder)
    resolved = resolve_written(written["config"])
    data_dir = data_dir or (Path(written["data_dir"]) if written["data_dir"] else None)
    task = tasks.get(resolved.config.task)(resolved.config.data, data_dir)
    task.use_files(folder)
    checked = resolved.candidate.check(resolved.config, task.spec)
    task.load()
    if task.fingerprint != orders.fingerprint:
        raise UserError(f"rank {ranks.rank} has other data than rank 0; give all ranks the same with --data-dir")
    state = checkpoint.load(folder, torch.device("cpu"), lambda _: None) if orders.step is not None else None
    if state is not None and state["step"] != orders.step:
        raise UserError(f"rank {ranks.rank} reads the checkpoint of step {state['step']}, rank 0 of {orders.step}")
    with mode.as_begun(folder):
        job = make_job(
            resolved.config,
            resolved.candidate,
            folder,
            task,
            pick_device(device),
            checked,
            written["created"],
            time.monotonic(),
            pictures=False,
            resume=state,
            ranks=ranks,
        )
        if code_of(job) != orders.code:
            raise UserError(f"rank {ranks.rank} has other code than rank 0; install the same version on all machines")
        return take_part(job)

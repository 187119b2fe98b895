"""The job of a run: its checked model, its loaded data, its device, and the processes that train it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

import tasks
from suite.config.run_config import RunConfig
from suite.errors import UserError
from suite.models.budget import Plan
from suite.models.candidate import Candidate, parse
from suite.models.certificate import Certificate
from suite.models.memory import require_memory
from suite.records import provenance
from suite.training.deterministic import mode
from suite.training.devices import pick_device
from suite.training.job import Job, describe_data
from suite.training.parallel.models import require_supported
from suite.training.parallel.ranks import ALONE, Ranks
from tasks.base import Task


def solved(config: RunConfig, candidate: Candidate | None, data_dir: Path | None) -> RunConfig:
    """The config with the widths that it leaves open, as `start` runs it."""
    task = tasks.get(config.task)(config.data, data_dir)
    plan, _ = (candidate or parse(config.mixer)).check(config, task.spec)
    return config.model_copy(update={"mixer_options": plan.mixer_options})


def usable_device(name: str, candidate: Candidate) -> torch.device:
    """The device of a run.

    Args:
        name: `auto`, `cpu` or `cuda:N`.
        candidate: what would run on it.

    Returns:
        The device.

    Raises:
        UserError: there is no such device, or the candidate does not run on it or not in this mode.
    """
    device = pick_device(name)
    if obstacle := candidate.obstacle(device):
        raise UserError(obstacle)
    if mode.active() and candidate.name.startswith("fla/") and ".py:" not in candidate.name:
        raise UserError(
            f"mixer {candidate.name!r} is not deterministic: flash-linear-attention times block sizes to choose one, "
            "which changes the order of sums; leave out --deterministic (docs/determinism.md)"
        )
    return device


def require_enough_memory(config: RunConfig, certificate: Certificate, device: torch.device, ranks: Ranks) -> None:
    """Refuses a model that the memory of this process's share cannot train.

    Args:
        config: of the run.
        certificate: of the checked model.
        device: of this process.
        ranks: of the job.

    Raises:
        UserError: it takes more than there is.
    """
    sharded = ranks.strategy == "fsdp2"
    require_memory(config, certificate, device, processes=ranks.world, here=ranks.local_world, sharded=sharded)


def require_trainable(config: RunConfig, candidate: Candidate, task: Task, plan: Plan, ranks: Ranks) -> None:
    """Refuses a run whose batches cannot be divided as they would have to be.

    Args:
        config: of the run.
        candidate: what its mixer names.
        task: loaded.
        plan: of the checked model.
        ranks: of the job.

    Raises:
        UserError: the model uses statistics of a batch that is computed in parts, or cannot be trained by several
            processes.
    """
    if config.train.accumulate > 1:
        _require_no_batch_statistics(candidate.build(config, task, plan))
    if ranks.world > 1:
        require_supported(candidate.build(config, task, plan), ranks)


def make_job(
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
    ranks: Ranks = ALONE,
) -> Job:
    """The job of a loaded task, on one process or on one of several ranks.

    Args:
        config: of the run, with all widths set.
        candidate: what its mixer names.
        folder: of the run.
        task: loaded.
        device: of this process.
        checked: the plan and the certificate.
        created: when the run was created.
        commanded: as for `start`.
        pictures: as for `start`.
        resume: the content of the checkpoint that it continues, if any.
        ranks: as for `start`.

    Returns:
        The job.
    """
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
        ranks=ranks,
    )


def _require_no_batch_statistics(model: nn.Module) -> None:
    """Raises UserError for a model that would compute something else on the parts of a batch than on the whole."""
    if any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in model.modules()):
        raise UserError(
            "train.accumulate: this model normalises by the mean and deviation of the whole batch, so its parts would "
            "give another result; leave accumulate at 1, or lower batch_size"
        )

"""A run in progress, and assembling its record."""

from __future__ import annotations

import math
import time
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from backbones.implementations import implementations
from suite.config.run_config import TRAINING_VERSION, RunConfig
from suite.models.budget import Plan
from suite.models.candidate import Candidate
from suite.models.certificate import Certificate
from suite.records import contracts, provenance
from suite.records.schema import (
    Code,
    Data,
    Hardware,
    Record,
    Selection,
    Status,
    TestUnits,
    Threads,
    Timing,
    Tracked,
    Versions,
)
from suite.safe_text import redacted
from suite.tracking.client import TrackedRun
from suite.training.deterministic import mode
from suite.training.evaluate import autocast
from suite.training.processors import wait_policy
from suite.training.trainer import FitResult
from tasks.base import Task


@dataclass
class Job:
    """One run in progress: what is fixed when it starts, and what its record will contain.

    commanded: when its command began, on the clock of `began`.
    pictures: whether pictures of the trained model are drawn, and its decoding is timed.
    """

    config: RunConfig
    candidate: Candidate
    folder: Path
    task: Task
    device: torch.device
    plan: Plan
    certificate: Certificate
    created: str
    code: Code  # read when the run starts, because files may change while it trains
    hardware: Hardware
    data: Data
    commanded: float
    pictures: bool
    resume: dict[str, Any] | None = None
    resumed_at: list[int] = field(default_factory=list)
    began: float = field(default_factory=time.monotonic)
    start_s: float = math.nan
    metrics: dict[str, dict[str, float]] = field(default_factory=dict)
    n_evaluated: dict[str, int] = field(default_factory=dict)
    test_units: TestUnits | None = None
    trace: list[tuple[int, float]] = field(default_factory=list)
    selected: nn.Module | None = None  # the model that was tested
    decoded_per_s: float | None = None

    def origin(self) -> dict[str, str]:
        """What must be the same when the run is resumed: its data and their protocol, its mixer's code, device and
        precision.
        """
        return {
            "data": self.data.fingerprint,
            "protocol": self.data.protocol,
            "task": self.code.task_origin,
            "mixer": self.code.mixer_origin,
            "device": self.device.type,
            "precision": self.precision,
        }

    @property
    def versions(self) -> Versions:
        return Versions(task=self.task.version, mixer=self.candidate.version, training=TRAINING_VERSION)

    @property
    def precision(self) -> str:
        """The precision that the forward pass runs in, "auto" resolved."""
        return "fp32" if isinstance(autocast(self.device, self.config.train.precision), nullcontext) else "bf16"


@dataclass(frozen=True)
class Ending:
    """How a run ended, the reason in one line, and the exit code."""

    status: Status
    error: str | None
    exit_code: int


def assemble(job: Job, ending: Ending, result: FitResult | None, tracked: TrackedRun | None) -> Record:
    """The record of a run, however it ended."""
    config, task = job.config, job.task
    return Record(
        id=job.folder.name,
        status=ending.status,
        error=redacted(ending.error) if ending.error else None,
        created=job.created,
        task=config.task_name,
        domain=task.domain,
        mixer=config.mixer_name,
        scale=config.scale,
        seed=config.seed,
        identity=config.identity,
        group=config.group,
        versions=job.versions,
        config=config.recorded(),
        spec=task.spec,
        certificate=_recorded_certificate(job),
        primary_metric=task.primary.name,
        higher_is_better=task.primary.higher_is_better,
        metrics=job.metrics,
        n_evaluated=job.n_evaluated,
        test_units=job.test_units,
        data=job.data,
        selection=Selection(step=result.best.step, metric=task.primary.name, value=result.best.value)
        if result
        else None,
        loss_trace=job.trace,
        code=job.code,
        packages=provenance.packages(),
        hardware=job.hardware,
        contract=contracts.known(config.mixer, job.code.mixer_origin),
        deterministic=mode.active(),
        threads=Threads(count=job.hardware.threads, wait_policy=wait_policy()),
        precision=job.precision,
        implementations=implementations(job.device, job.precision),
        timing=_timing(job, result) if result else None,
        peak_memory_bytes=provenance.peak_memory_bytes(job.device),
        resumed_at=job.resumed_at,
        mlflow=Tracked(run_id=tracked.run_id, uri=tracked.uri) if tracked else None,
    )


def _recorded_certificate(job: Job) -> dict[str, Any]:
    """Without the folders of files, and with the options that the record's config has."""
    names = {"task": job.config.task_name, "mixer": job.config.mixer_name}
    options = job.config.recorded()["mixer_options"]
    return {**job.certificate.model_dump(mode="json"), **names, "mixer_options": options}


def describe_data(task: Task) -> Data:
    """The loaded data, as a record describes them."""
    info = task.info()
    splits, details = dict(info.splits), dict(info.extra)
    return Data(
        fingerprint=task.fingerprint,
        protocol=task.protocol,
        source=info.source,
        unit=info.unit,
        splits=splits,
        details=details,
    )


def _timing(job: Job, result: FitResult) -> Timing:
    clock, train = result.clock, job.config.train
    loop = clock.step + clock.data + clock.bookkeeping
    return Timing(
        wall_s=clock.earlier + time.monotonic() - job.began,
        start_s=job.start_s,
        step_s=clock.step,
        data_s=clock.data,
        evaluation_s=clock.evaluation,
        bookkeeping_s=clock.bookkeeping,
        data_share=clock.data / loop,
        bookkeeping_share=clock.bookkeeping / loop,
        examples_per_s=result.examples / loop,
        steps_per_s=result.examples / train.batch_size / loop,
        decoded_per_s=job.decoded_per_s,
    )

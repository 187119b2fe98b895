"""Training the first steps of a record again on the CPU, and comparing the losses.

Another rounding (other kernels, another number of threads, another processor) moves the first losses too, and in some
runs much: after 16 steps at the largest rate of its race, HyperGLU's loss on `household-power` differs by 9 % with the
number of threads, while a learning rate that is 1 % off moves the loss of `mqar` by .02 %. So no one tolerance fits all
runs, and each is calibrated by itself: its first steps are trained with other roundings and with the rate 1 % off, and
compared as far as rounding stays small against that change.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

import tasks
from backbones.implementations import without_compiled_kernels
from suite.config.run_config import OWN_ORIGINS, RunConfig
from suite.errors import first_line
from suite.models.candidate import Candidate, parse, registered
from suite.models.written import from_canonical
from suite.records.schema import Record
from suite.training.observer import Quiet
from suite.training.signals import Stop
from suite.training.trainer import Trainer
from tasks.base import Task

#: First steps that are compared.
STEPS = 16
#: A factor on the learning rate that a replay must find.
PLANTED = 1.01
#: How many times what rounding moved here a loss may differ elsewhere, where a step is compared.
MARGIN = 8
#: Relative differences of fp32 losses that mean nothing.
FLOOR = 2e-6
CPU = torch.device("cpu")


@dataclass(frozen=True)
class Replayed:
    """The comparison of a record's first losses with those of a new training.

    deviation: the relative difference of a loss, at the step where it is largest compared with what is allowed.
    tolerance: what is allowed at that step: half of what a learning rate 1 % off changes.
    steps: how many losses were compared.
    fault: what is wrong, in one line; empty where nothing is.
    incomparable: why its losses show nothing, neither a fault nor that there is none; empty where they do.
    """

    deviation: float
    tolerance: float
    steps: int
    seconds: float
    fault: str = ""
    incomparable: str = ""


def obstacle(made: Record, sources: Mapping[str, Path], *, trusted: bool) -> str:
    """Why a record is not replayed.

    Args:
        made: a record that was verified.
        sources: origin → file, of mixers in files.
        trusted: whether the user lets these files run.

    Returns:
        One line; empty where it can be replayed.
    """
    origin = made.config.mixer_origin
    if made.hardware.device != "cpu" or made.precision != "fp32":
        return f"it was trained on {made.hardware.device} in {made.precision}, which rounds otherwise than the CPU"
    if len(made.loss_trace) < 2:
        return "it has no losses of first steps"
    if origin not in OWN_ORIGINS:
        if origin not in sources:
            return f"its mixer ({origin}) is in no file of the entry"
        return "" if trusted else f"its mixer is the code of its author ({sources[origin]}), which --trust-source runs"
    candidate, task = registered(made.mixer), tasks.built_in(made.task)
    if candidate is None or candidate.version != made.versions.mixer:
        return f"its mixer is of version {made.versions.mixer}, which is not here"
    if task is None or task.version != made.versions.task or task.needs_data_dir:
        return "its task is of another version, or its data are not here"
    return ""


def replay(made: Record, sources: Mapping[str, Path]) -> Replayed:
    """Trains the first steps of a record and compares their losses. Runs the file of its mixer where it has one.

    Args:
        made: a record without an obstacle.
        sources: origin → file, of mixers in files.

    Returns:
        The comparison.
    """
    began = time.monotonic()
    recorded = {step: loss for step, loss in made.loss_trace if step <= STEPS}
    try:
        config, candidate = config_of(made, sources)
        if fault := miscounted(made, config, candidate):
            return Replayed(float("inf"), 0.0, 0, time.monotonic() - began, fault)
        losses, allowed = calibrated(config, candidate, max(recorded))
    except Exception as error:  # whatever the model raises: the record claims that it was trained
        fault = f"it cannot be trained again: {type(error).__name__}: {first_line(error)}"
        return Replayed(float("inf"), 0.0, 0, time.monotonic() - began, fault)
    compared = {step: _apart(losses[step - 1], recorded[step]) for step in recorded if step <= len(allowed)}
    found, limit = max(
        ((apart, allowed[step - 1]) for step, apart in compared.items()), key=lambda pair: pair[0] / pair[1]
    )
    fault, incomparable = "", ""
    if not found <= limit:  # NaN too
        fault = (
            f"loss_trace: trained again, a loss of its first {len(compared)} recorded steps differs by {found:.2g} of "
            f"its value, {limit:.2g} is allowed"
        )
    elif not any(allowed[step - 1] > FLOOR for step in compared):
        incomparable = "rounding hides a learning rate 1 % off from its first steps on"
    return Replayed(found, limit, len(compared), time.monotonic() - began, fault, incomparable)


def calibrated(config: RunConfig, candidate: Candidate, steps: int) -> tuple[list[float], list[float]]:
    """The losses of a run's first steps, and how far those of an honest record may be from them.

    Args:
        config: the run, its widths solved.
        candidate: its mixer.
        steps: how many.

    Returns:
        The losses; and for each of the steps that can be compared the allowed relative difference: half of what a rate
        1 % off changes. They end before the step where rounding makes more than an eighth of the allowed difference:
        another processor may round several times as much as what is tried here.
    """
    task = tasks.get(config.task)(config.data)
    task.load()
    losses = first_losses(config, candidate, task, steps)
    with _another_number_of_threads():
        threads = first_losses(config, candidate, task, steps)
    with without_compiled_kernels():
        kernels = first_losses(config, candidate, task, steps)
    train = config.train.model_copy(update={"lr": PLANTED * config.train.lr})
    planted = first_losses(config.model_copy(update={"train": train}), candidate, task, steps)
    allowed = []
    for each in zip(losses, threads, kernels, planted, strict=True):
        rounding = max(_apart(each[0], each[1]), _apart(each[0], each[2]))
        limit = max(FLOOR, _apart(each[0], each[3]) / 2)
        if not rounding <= limit / MARGIN:
            break
        allowed.append(limit)
    return losses, allowed or [FLOOR]


@contextmanager
def _another_number_of_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2 if before == 1 else 1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _apart(one: float, other: float) -> float:
    """How far a loss is from another, relative to its size."""
    return abs(one - other) / max(abs(one), 1e-12)


def config_of(made: Record, sources: Mapping[str, Path]) -> tuple[RunConfig, Candidate]:
    """The config of a record, to train it again. Runs the file of its mixer where it has one.

    Args:
        made: a record without an obstacle.
        sources: origin → file, of mixers in files.

    Returns:
        The config, its widths solved, and its mixer.
    """
    content = made.config.canonical()
    if made.config.mixer_origin not in OWN_ORIGINS:
        file = sources[made.config.mixer_origin]
        content["mixer"] = f"{file}:{made.mixer.rpartition(':')[2]}"
    candidate = parse(content["mixer"])
    return from_canonical(content, candidate=candidate), candidate


def miscounted(made: Record, config: RunConfig, candidate: Candidate) -> str:
    """Counts the certificate again, which reading a record cannot do for a mixer in a file.

    Args:
        made: a record.
        config: from `config_of`.
        candidate: from `config_of`.

    Returns:
        What is wrong, in one line; empty where nothing is.
    """
    task = tasks.get(config.task)(config.data)
    counted = candidate.certify(config, task.spec, candidate.plan(config, task.spec))
    for name in ("parameters", "mixer_parameters", "flops", "state_bytes", "matched", "pays_in_ffn", "ffn_width"):
        recorded, value = getattr(made.certificate, name), getattr(counted, name)
        if recorded != value:
            return f"certificate.{name}: {recorded} is recorded, its mixer has {value}"
    if made.certificate.flops_verified and not counted.flops_verified:
        return "certificate.flops_verified: true is recorded, its mixer has no plain_forward"
    return ""


def first_losses(config: RunConfig, candidate: Candidate, task: Task, steps: int) -> list[float]:
    """The losses of a run's first steps, on the CPU.

    Args:
        config: the run, its widths solved.
        candidate: its mixer.
        task: its task, loaded.
        steps: how many.

    Returns:
        One loss per step.
    """
    plan = candidate.plan(config, task.spec)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        model = candidate.build(config, task, plan)
        trainer = Trainer(model, task, config, device=CPU, run_dir=Path(), observer=Quiet(), stop=Stop())
        return trainer.first_losses(min(steps, config.train.steps))

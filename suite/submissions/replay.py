"""Training the first steps of a record again on the CPU, and comparing the losses.

Another rounding (other kernels, another number of threads, another processor) moves the first losses a little, a change
of the config by much more. `tolerance.json` holds what was measured, by `python -m suite.submissions.calibration`.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch

import tasks
from suite.config.run_config import OWN_ORIGINS, RunConfig
from suite.errors import first_line
from suite.models.candidate import Candidate, parse, registered
from suite.models.written import from_canonical
from suite.records.schema import Record
from suite.training.observer import Quiet
from suite.training.signals import Stop
from suite.training.trainer import Trainer

CPU = torch.device("cpu")


@dataclass(frozen=True)
class Replayed:
    """The comparison of a record's first losses with those of a new training.

    deviation: the largest relative difference of a loss.
    tolerance: which it may not exceed.
    steps: how many losses were compared.
    fault: what is wrong, in one line; empty where nothing is.
    """

    deviation: float
    tolerance: float
    steps: int
    seconds: float
    fault: str = ""


@cache
def calibration() -> Mapping[str, Any]:
    """What was measured: the steps that are compared, the tolerance, and the figures that it follows from.

    Returns:
        The content of `tolerance.json`.
    """
    content: Mapping[str, Any] = json.loads(files("suite.submissions").joinpath("tolerance.json").read_text("utf-8"))
    return content


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
    began, steps, tolerance = time.monotonic(), int(calibration()["steps"]), float(calibration()["tolerance"])
    recorded = [(step, loss) for step, loss in made.loss_trace if step <= steps]
    try:
        config, candidate = _config(made, sources)
        if fault := _miscounted(made, config, candidate):
            return Replayed(float("inf"), tolerance, 0, time.monotonic() - began, fault)
        losses = first_losses(config, candidate, recorded[-1][0])
    except Exception as error:  # whatever the model raises: the record claims that it was trained
        fault = f"it cannot be trained again: {type(error).__name__}: {first_line(error)}"
        return Replayed(float("inf"), tolerance, 0, time.monotonic() - began, fault)
    found = deviation([loss for _, loss in recorded], [losses[step - 1] for step, _ in recorded])
    fault = ""
    if not found <= tolerance:
        fault = (
            f"loss_trace: trained again, the losses of its first {len(recorded)} recorded steps differ by up to "
            f"{found:.2g} of their values, {tolerance:.2g} is allowed"
        )
    return Replayed(found, tolerance, len(recorded), time.monotonic() - began, fault)


def _config(made: Record, sources: Mapping[str, Path]) -> tuple[RunConfig, Candidate]:
    content = made.config.canonical()
    if made.config.mixer_origin not in OWN_ORIGINS:
        file = sources[made.config.mixer_origin]
        content["mixer"] = f"{file}:{made.mixer.rpartition(':')[2]}"
    candidate = parse(content["mixer"])
    return from_canonical(content, candidate=candidate), candidate


def _miscounted(made: Record, config: RunConfig, candidate: Candidate) -> str:
    """Counts the certificate again, which reading a record cannot do for a mixer in a file."""
    task = tasks.get(config.task)(config.data)
    counted = candidate.certify(config, task.spec, candidate.plan(config, task.spec))
    for name in ("parameters", "mixer_parameters", "flops", "state_bytes", "matched", "pays_in_ffn", "ffn_width"):
        recorded, value = getattr(made.certificate, name), getattr(counted, name)
        if recorded != value:
            return f"certificate.{name}: {recorded} is recorded, its mixer has {value}"
    return ""


def first_losses(config: RunConfig, candidate: Candidate, steps: int) -> list[float]:
    """The losses of a run's first steps, on the CPU.

    Args:
        config: the run, its widths solved.
        candidate: its mixer.
        steps: how many.

    Returns:
        One loss per step.
    """
    task = tasks.get(config.task)(config.data)
    task.load()
    plan = candidate.plan(config, task.spec)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        model = candidate.build(config, task, plan)
        trainer = Trainer(model, task, config, device=CPU, run_dir=Path(), observer=Quiet(), stop=Stop())
        return trainer.first_losses(min(steps, config.train.steps))


def deviation(recorded: Sequence[float], again: Sequence[float]) -> float:
    """How far two traces are apart.

    Args:
        recorded: losses.
        again: as many losses.

    Returns:
        The largest difference of two losses, relative to the recorded one's size.
    """
    return max(abs(a - b) / max(abs(a), 1e-12) for a, b in zip(recorded, again, strict=True))

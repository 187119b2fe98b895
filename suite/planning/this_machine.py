"""Training steps measured on this machine's processor, and the two rates that follow from a few of them.

A step takes `FLOPs / products + bytes / traffic`. The two rates are fitted to the runs of CALIBRATION, by least squares
of the relative error, and then predict every other run.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from scipy.optimize import nnls

import tasks
from suite.bench.timing import interleaved, peak_bytes
from suite.bench.training import training_step
from suite.config.run_config import RunConfig
from suite.models.resolve import Resolved, resolve_run
from suite.planning.device_memory import Training, device_memory
from suite.planning.estimate import BACKWARD, step_moved
from suite.planning.model_count import checked_plan, count_model
from suite.planning.rates import Rates
from tasks.base import Batch, Task

#: (task, mixer) at SCALE: five families of mixers on one task.
CALIBRATION = tuple(("sotu", mixer) for mixer in ("softmax", "fem", "linear", "gla", "ssm"))
SCALE = "board"
#: Interleaved rounds; a figure is their median.
ROUNDS = 7


@dataclass(frozen=True)
class Step:
    """One training step, counted and not yet timed.

    flops: forward and backward, without what a mask spares.
    moved: bytes that its operations read and write.
    memory: predicted peak, bytes.
    run: builds the model and returns what runs the step once.
    """

    task: str
    mixer: str
    flops: float
    moved: float
    memory: float
    run: Callable[[], Callable[[], object]]


@dataclass(frozen=True)
class Measured:
    """A step with its times: seconds of the median and the quartiles, and the peak of the allocator in bytes."""

    step: Step
    seconds: float
    low: float
    high: float
    peak: int


def counted_step(task_name: str, mixer: str, scale: str = SCALE) -> Step:
    """Counts a training step of a shipped recipe, in fp32 on one process.

    Args:
        task_name: a task whose data ship with the suite.
        mixer: its name.
        scale: of the recipe.

    Returns:
        The step.

    Raises:
        UserError: the mixer does not fit the task.
    """
    resolved = resolve_run(task=task_name, mixer=mixer, scale=scale)
    config: RunConfig = resolved.config
    task = tasks.get(task_name)(config.data)
    plan = checked_plan(config, task)
    model = count_model(task, plan.shape, plan.layers, "fp32", compiled=True)
    training = Training(model, ema=bool(config.train.ema), selects=False)
    task.load()
    batch = next(task.train_batches(0, config.train.batch_size))
    return Step(
        task_name,
        mixer,
        flops=BACKWARD * model.computed * config.train.batch_size,
        moved=step_moved(training, config.train.batch_size, 1),
        memory=device_memory(training, config.train.batch_size).total,
        run=partial(_built_step, resolved, task, batch),
    )


def measure(steps: Sequence[Step], rounds: int = ROUNDS) -> list[Measured]:
    """Times steps in turns on one thread, by process time, and measures their memory.

    Args:
        steps: counted.
        rounds: in each of which every step runs once.

    Returns:
        One measurement per step.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        peaks = [peak_bytes(partial(_first_steps, step)) for step in steps]
        times = interleaved({f"{i}": step.run() for i, step in enumerate(steps)}, rounds)
    finally:
        torch.set_num_threads(threads)
    return [
        Measured(step, time.median_s, time.low_s, time.high_s, peak)
        for step, time, peak in zip(steps, times.values(), peaks, strict=True)
    ]


def fitted_rates(measured: Sequence[Measured]) -> Rates:
    """The rates at which the counted work takes the measured times, with the least squares of the relative error.

    Args:
        measured: of at least two steps.

    Returns:
        Rates of products and of memory traffic.
    """
    work = np.array([[each.step.flops, each.step.moved] for each in measured])
    seconds = np.array([each.seconds for each in measured])
    (per_flop, per_byte), _ = nnls(work / seconds[:, None], np.ones(len(seconds)))
    return Rates(*(1 / each if each > 0 else float("inf") for each in (per_flop, per_byte)))


def _built_step(resolved: Resolved, task: Task, batch: Batch) -> Callable[[], object]:
    return training_step(resolved, task, batch)


def _first_steps(step: Step) -> None:
    """Two steps of a new model: in the second, the optimiser's moments are there."""
    run = step.run()
    run()
    run()

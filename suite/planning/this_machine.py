"""Training steps measured on this machine's processor, and the three rates that follow from a few of them.

A step takes `FLOPs / products + bytes / traffic + operations / issued`. The rates are fitted to the runs of
CALIBRATION, by least squares of the relative error, and then predict every other run.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from typing import Any

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

#: (task, mixer) at SCALE: mixers of all families, on one task of large steps and two of small ones, where issuing
#: operations takes much of the time. On one task alone, bytes and operations grow together and cannot be separated.
#: The small steps differ: 128 sequences of 12 tokens, where kernels start often, once per sequence and head; 32 of 32.
CALIBRATION_TASKS = ("sotu", "mano", "parity")
CALIBRATION = tuple(
    product(CALIBRATION_TASKS, ("softmax", "fem", "linear", "gla", "ssm", "gated-attention", "mlstm", "deltanet"))
)
SCALE = "board"
#: Interleaved rounds; a figure is their median.
ROUNDS = 7


@dataclass(frozen=True)
class Step:
    """One training step, counted and not yet timed.

    flops: forward and backward, without what a mask spares.
    moved: bytes that its operations read and write.
    operations: their number, forward and backward.
    memory: predicted peak, bytes.
    run: builds the model and returns what runs the step once.
    """

    task: str
    mixer: str
    flops: float
    moved: float
    operations: float
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
        operations=model.work.of(config.train.batch_size).operations,
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
    """The rates at which the counted work takes the measured times.

    Args:
        measured: of at least three steps.

    Returns:
        Rates of products, of memory traffic and of issuing, one after the other.
    """
    costs = _costs([(each.step.flops, each.step.moved, each.step.operations) for each in measured], measured)
    products, traffic, issued = (1 / cost if cost > 0 else float("inf") for cost in costs)
    return Rates(products, traffic, issued, ahead=False)


def own_rates(measured: Sequence[Measured], rates: Rates) -> Rates:
    """A mixer's own rates: its kernels come less or more near to the common ones. Its products and its traffic keep
    their ratio.

    Args:
        measured: at least two steps of the mixer.
        rates: of all mixers.

    Returns:
        The rates at which its counted work takes the measured times.
    """
    alone = replace(rates, issued=float("inf"))
    work = [(alone.seconds(each.step.flops, each.step.moved), each.step.operations / rates.issued) for each in measured]
    computing, issuing = (1 / cost if cost > 0 else float("inf") for cost in _costs(work, measured))
    return replace(
        rates,
        products=rates.products * computing,
        traffic=rates.traffic * computing,
        issued=rates.issued * issuing,
    )


def _costs(work: Sequence[tuple[float, ...]], measured: Sequence[Measured]) -> np.ndarray[Any, Any]:
    """Seconds per unit of each kind of work, none negative: the least squares of the relative error of the times."""
    seconds = np.array([each.seconds for each in measured])
    costs, _ = nnls(np.array(work) / seconds[:, None], np.ones(len(seconds)))
    return costs


def _built_step(resolved: Resolved, task: Task, batch: Batch) -> Callable[[], object]:
    return training_step(resolved, task, batch)


def _first_steps(step: Step) -> None:
    """Two steps of a new model: in the second, the optimiser's moments are there."""
    run = step.run()
    run()
    run()

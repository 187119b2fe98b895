"""Predicted against measured: the rates fitted to the calibration runs predict runs of other mixers on other tasks."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from suite.errors import UserError
from suite.planning.rates import Rates
from suite.planning.this_machine import CALIBRATION, Measured, counted_step, fitted_rates, measure

#: No mixer and no task of these is in CALIBRATION.
TASKS = ("fashion-mnist", "household-power", "mqar", "mad-in-context")
MIXERS = ("retnet", "aft", "gated-deltanet", "mamba2", "fox", "differential", "hyperglu", "rwkv7")
#: The largest errors of a prediction that are called good.
TIME, MEMORY = 0.15, 0.10


@dataclass(frozen=True)
class Row:
    """One run. Seconds per step, and bytes at the peak.

    calibration: whether the rates were fitted to it; its time is then no prediction.
    """

    task: str
    mixer: str
    calibration: bool
    predicted_s: float
    measured_s: float
    low_s: float
    high_s: float
    predicted_bytes: float
    measured_bytes: int

    @property
    def time_error(self) -> float:
        """Predicted over measured time, minus 1."""
        return self.predicted_s / self.measured_s - 1

    @property
    def memory_error(self) -> float:
        """Predicted over measured memory, minus 1."""
        return self.predicted_bytes / self.measured_bytes - 1


@dataclass(frozen=True)
class Check:
    """All rows, calibration first; the rates; and the runs that a mixer does not support, with the reason."""

    rows: tuple[Row, ...]
    rates: Rates
    left_out: tuple[str, ...]

    @property
    def predicted(self) -> list[Row]:
        """The rows that are predictions."""
        return [row for row in self.rows if not row.calibration]


def check(say: Callable[[str], None]) -> Check:
    """Counts, times and predicts all runs, the calibration and the others in the same rounds.

    Args:
        say: called with one line when counting is done and timing begins.

    Returns:
        The comparison.
    """
    steps, left = [counted_step(task, mixer) for task, mixer in CALIBRATION], list[str]()
    for task, mixer in itertools.product(TASKS, MIXERS):
        try:
            steps.append(counted_step(task, mixer))
        except UserError as error:
            left.append(f"{mixer} on {task}: {error}")
    say(f"{len(steps)} runs are counted; timing them on one thread")
    return compared(measure(steps), left)


def compared(measured: Sequence[Measured], left: Sequence[str] = ()) -> Check:
    """Fits the rates to the calibration runs and predicts all.

    Args:
        measured: the runs of CALIBRATION, in its order, then others.
        left: the runs that are left out.

    Returns:
        The comparison.
    """
    known = len(CALIBRATION)
    rates = fitted_rates(measured[:known])
    rows = tuple(_row(each, rates, i < known) for i, each in enumerate(measured))
    return Check(rows, rates, tuple(left))


def _row(measured: Measured, rates: Rates, calibration: bool) -> Row:
    step = measured.step
    return Row(
        task=step.task,
        mixer=step.mixer,
        calibration=calibration,
        predicted_s=rates.seconds(step.flops, step.moved),
        measured_s=measured.seconds,
        low_s=measured.low,
        high_s=measured.high,
        predicted_bytes=step.memory,
        measured_bytes=measured.peak,
    )

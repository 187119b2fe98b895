"""Predicted against measured: the rates fitted to the calibration runs predict runs of other mixers on other tasks.

Kernels differ in how near they come to the rates. So each mixer also runs on the calibration's tasks, which gives its
own rates, and these predict it on all other tasks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product

from suite.errors import UserError
from suite.planning.rates import Rates
from suite.planning.this_machine import (
    CALIBRATION,
    CALIBRATION_TASKS,
    Measured,
    Step,
    counted_step,
    fitted_rates,
    measure,
    own_rates,
)

#: No mixer and no task of these is in CALIBRATION.
TASKS = ("fashion-mnist", "household-power", "mqar", "mad-in-context", "mad-copy")
MIXERS = ("retnet", "aft", "gated-deltanet", "mamba2", "fox", "differential", "hyperglu", "rwkv7")
#: The largest errors of a prediction that are called good.
TIME, MEMORY = 0.15, 0.10


@dataclass(frozen=True)
class Row:
    """One run. Seconds per step, and bytes at the peak.

    calibration: whether the common or the mixer's own rates were fitted to it; its time is then no prediction.
    common_s: by the common rates.
    predicted_s: by the mixer's own rates, where it has them.
    """

    task: str
    mixer: str
    calibration: bool
    common_s: float
    predicted_s: float
    measured_s: float
    low_s: float
    high_s: float
    predicted_bytes: float
    measured_bytes: int

    @property
    def common_error(self) -> float:
        """Time by the common rates over measured time, minus 1."""
        return self.common_s / self.measured_s - 1

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
    """All rows, calibration first; the common rates; and the runs that a mixer does not support, with the reason.

    own: of each mixer that has rates of its own.
    """

    rows: tuple[Row, ...]
    rates: Rates
    left_out: tuple[str, ...]
    own: Mapping[str, Rates] = field(default_factory=dict)

    @property
    def predicted(self) -> list[Row]:
        """The rows that are predictions."""
        return [row for row in self.rows if not row.calibration]


def check(say: Callable[[str], None]) -> Check:
    """Counts, times and predicts all runs, the calibration and the others in the same rounds.

    Args:
        say: called with one line when counting begins, and one when timing begins.

    Returns:
        The comparison.
    """
    say("counting the operations of small runs")
    calibration, left = [counted_step(task, mixer) for task, mixer in CALIBRATION], list[str]()
    others = _counted(list(product((*CALIBRATION_TASKS, *TASKS), MIXERS)), left)
    say(f"{len(calibration + others)} runs are counted; timing them on one thread")
    return compared(measure([*calibration, *others]), left)


def compared(measured: Sequence[Measured], left: Sequence[str] = ()) -> Check:
    """Fits the common rates to the calibration runs, those of each other mixer to its runs on their tasks, and predicts
    all.

    Args:
        measured: the runs of CALIBRATION, in its order, then those of other mixers.
        left: the runs that are left out.

    Returns:
        The comparison.
    """
    known, others = measured[: len(CALIBRATION)], measured[len(CALIBRATION) :]
    rates = fitted_rates(known)
    own = dict[str, Rates]()
    for mixer in dict.fromkeys(each.step.mixer for each in others):
        runs = [each for each in others if each.step.mixer == mixer and each.step.task in CALIBRATION_TASKS]
        if len(runs) == len(CALIBRATION_TASKS):
            own[mixer] = own_rates(runs, rates)
    rows = [_row(each, rates, rates, calibration=True) for each in known]
    for each in others:
        fitted = each.step.mixer in own and each.step.task in CALIBRATION_TASKS
        rows.append(_row(each, rates, own.get(each.step.mixer, rates), calibration=fitted))
    return Check(tuple(rows), rates, tuple(left), own)


def _counted(runs: Sequence[tuple[str, str]], left: list[str]) -> list[Step]:
    """The runs that are supported; the others' reasons are added to `left`."""
    steps = []
    for task, mixer in runs:
        try:
            steps.append(counted_step(task, mixer))
        except UserError as error:
            left.append(f"{mixer} on {task}: {error}")
    return steps


def _row(measured: Measured, common: Rates, own: Rates, *, calibration: bool) -> Row:
    step = measured.step
    work = step.flops, step.moved, step.operations
    return Row(
        task=step.task,
        mixer=step.mixer,
        calibration=calibration,
        common_s=common.seconds(*work),
        predicted_s=own.seconds(*work),
        measured_s=measured.seconds,
        low_s=measured.low,
        high_s=measured.high,
        predicted_bytes=step.memory,
        measured_bytes=measured.peak,
    )

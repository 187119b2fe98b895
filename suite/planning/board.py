"""A planned board: what each mixer's run and race take on a number of GPUs, and all races together."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from backbones.base import Layer
from suite.config.run_config import ModelConfig, RunConfig
from suite.planning.communication import Parallel, link_of
from suite.planning.device_memory import Training
from suite.planning.estimate import Cluster, Estimate, estimate, reference_work
from suite.planning.gpus import Gpu
from suite.planning.model_count import ModelCount, checked_plan, count_model
from suite.planning.rates import assumed_rates
from tasks.base import Task


@dataclass(frozen=True)
class Racing:
    """A row of a board that is planned.

    label: how tables name it.
    config: of its runs, widths solved.
    runs: of its race, without moves of the window.
    task: of the runs; its data are not read.
    per_move: runs that each move of the window adds.
    curve: whether it is one of the softmax parameter curve.
    """

    label: str
    config: RunConfig
    runs: int
    task: Task
    per_move: int = 0
    curve: bool = False


@dataclass(frozen=True)
class Counted:
    """A row with its counts and those of its softmax reference, which do not depend on the devices."""

    racing: Racing
    model: ModelCount
    reference: ModelCount


@dataclass(frozen=True)
class Planned:
    """A row with its estimate on some devices.

    reference_mfu: that the reference reaches with the whole batch on one device; below the assumed one where memory
        traffic leaves too little time.
    """

    counted: Counted
    estimate: Estimate
    reference_mfu: float

    @property
    def label(self) -> str:
        """The row's name."""
        return self.counted.racing.label

    @property
    def runs(self) -> int:
        """Runs of its race."""
        return self.counted.racing.runs

    @property
    def race_gpu_hours(self) -> float:
        """GPU hours of its race."""
        return self.runs * self.estimate.gpu_hours

    @property
    def race_s(self) -> float:
        """Seconds of its race, each run on all GPUs, one after the other."""
        return self.runs * self.estimate.run_s


@dataclass(frozen=True)
class Wish:
    """The devices that a user names.

    mfu: assumed of the softmax reference.
    """

    gpu: Gpu
    gpus: int
    parallel: Parallel
    mfu: float


class Counter:
    """Counts models, each once."""

    def __init__(self) -> None:
        self._known: dict[tuple[object, ...], ModelCount] = {}

    def count(self, racing: Racing) -> Counted:
        """Counts a row.

        Args:
            racing: the row.

        Returns:
            Its counts.

        Raises:
            UserError: it is a baseline, or its budget is not kept.
        """
        config, precision = racing.config, precision_of(racing.config)
        plan = checked_plan(config, racing.task)
        plain = config.model.model_copy(update={"width_factor": 1.0})
        model, reference = (
            self._counted(racing.task, shape, layers, precision)
            for shape, layers in ((plan.shape, plan.layers), (plain, plan.reference))
        )
        return Counted(racing, model, reference)

    def _counted(self, task: Task, shape: ModelConfig, layers: tuple[Layer, ...], precision: str) -> ModelCount:
        key = (task.name, str(task.options), shape, layers, precision)
        if key not in self._known:
            self._known[key] = count_model(task, shape, layers, precision, compiled=False)
        return self._known[key]


def precision_of(config: RunConfig) -> str:
    """The precision of a run on a GPU that is fast at bf16, as all of `GPUS` are."""
    return "bf16" if config.train.precision == "auto" else config.train.precision


def plan_row(counted: Counted, wish: Wish) -> Planned:
    """Estimates a row on some devices.

    Args:
        counted: its counts.
        wish: the devices.

    Returns:
        The row with its estimate.

    Raises:
        UserError: the batch does not divide among the devices.
    """
    config, gpu = counted.racing.config, wish.gpu
    precision, train = precision_of(config), config.train
    work = reference_work(counted.reference, train)
    rates = assumed_rates(gpu, precision, wish.mfu, work)
    flops, computed, moved = work
    training = Training(counted.model, bool(train.ema), wish.gpus, wish.parallel)
    cluster = Cluster(wish.gpus, wish.parallel, gpu.peak(precision), gpu.memory, link_of(gpu, wish.gpus))
    reached = flops / rates.seconds(computed, moved) / gpu.peak(precision)
    return Planned(counted, estimate(train, training, cluster, rates), reached)


def board_gpu_hours(rows: Iterable[Planned]) -> float:
    """GPU hours of all races of a board.

    Args:
        rows: of the board, the softmax parameter curve included.

    Returns:
        The sum.
    """
    return sum(row.race_gpu_hours for row in rows)

"""A row that a sweep races: one mixer with fixed options on one task, every run of it a learning rate and a seed."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import tasks
from suite.config.run_config import RunConfig
from suite.models.resolve import Resolved
from suite.records.schema import Record
from suite.statistics.race import Race, State, state
from tasks.base import Metric


@dataclass(frozen=True)
class Score:
    """All that choosing may see of a run: nothing of it comes from the test set.

    valid: the primary metric on validation, in the metric's unit; None where the run has no figure.
    status: of its record.
    wall_s: seconds that it took.
    """

    valid: float | None
    status: str
    wall_s: float | None = None


def score_of(record: Record) -> Score:
    """A record without its test figures.

    Args:
        record: any run's.

    Returns:
        What choosing may see.
    """
    valid = record.metrics.get("valid", {}).get(record.primary_metric)
    return Score(valid, record.status, record.timing.wall_s if record.timing else None)


@dataclass
class Entrant:
    """One race, with the runs of it that have ended.

    label: how tables name it.
    base: its config with all widths solved; seed and learning rate are those of no run in particular.
    metric: the task's primary one.
    data_dir: of the task's data.
    given: the command-line options that name this race, without rates and seeds.
    """

    label: str
    base: RunConfig
    race: Race
    metric: Metric
    data_dir: Path | None = None
    given: tuple[str, ...] = ()
    scores: dict[tuple[float, int], Score] = field(default_factory=dict)

    def config(self, rate: float, seed: int) -> RunConfig:
        """The config of one run.

        Args:
            rate: peak learning rate.
            seed: of the run.

        Returns:
            The config that `suite run --seed … --set lr=…` would give.
        """
        train = self.base.train.model_copy(update={"lr": rate})
        return self.base.model_copy(update={"seed": seed, "train": train})

    @cached_property
    def task_name(self) -> str:
        """The task's name, without the folder of a file."""
        return self.base.task_name

    def state(self) -> State:
        """What the race should run next, or its result. A run that failed without a figure is missing for good: then
        nothing is missing and nothing is chosen.

        Returns:
            The state of the race.
        """
        if self.failed:
            return State((), None, self.race.rates, {})
        sign = 1.0 if self.metric.higher_is_better else -1.0
        return state(self.race, {run: sign * s.valid for run, s in self.scores.items() if s.valid is not None})

    @property
    def failed(self) -> list[tuple[float, int]]:
        """The runs that ended without a figure that could be compared."""
        return [run for run, score in self.scores.items() if score.valid is None]

    def adopt(self, records: Iterable[Record]) -> None:
        """Takes over the runs that have ended before, so that none is repeated.

        Args:
            records: any; those of other configs, versions or mixers are ignored.
        """
        known = {record.identity: record for record in records if record.status in ("finished", "diverged")}
        while True:  # rates of a moved window are only known once the others are there
            new = {
                run: score_of(record)
                for run in self.state().missing
                if (record := known.get(self.config(*run).identity)) is not None
            }
            if not new:
                return
            self.scores |= new


def entrant(
    resolved: Resolved, race: Race, *, label: str, data_dir: Path | None = None, given: tuple[str, ...] = ()
) -> Entrant:
    """Sizes a mixer and checks its budget, once for all runs of its race.

    Args:
        resolved: its config and candidate.
        race: its plan.
        label: how tables name it.
        data_dir: of the task's data.
        given: command-line options that name the race.

    Returns:
        The entrant, without any runs.

    Raises:
        UserError: the budget does not allow it.
        DataError: the task's options are invalid.
    """
    task = tasks.get(resolved.config.task)(resolved.config.data, data_dir)
    plan, _ = resolved.candidate.check(resolved.config, task.spec)
    base = resolved.config.model_copy(update={"mixer_options": plan.mixer_options})
    return Entrant(label, base, race, task.primary, data_dir, given)

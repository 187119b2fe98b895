"""Training runs of a row again to their ends on another machine, and comparing the means over equal seeds.

Another machine rounds otherwise, and training amplifies that: at equal seeds its figures differ. How much is calibrated
at the same time and on the same seeds: each is trained a second time with a learning rate that is off by one part in a
million, which moves every step about as much as another order of sums does. The calibration uses nothing of the
author's, who could otherwise raise one figure by much, and the deviation with it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from statistics import fmean

from scipy.special import stdtrit

from suite.boards.board import primary_metric
from suite.console import format_metric, format_number
from suite.records.badges import Reproduction
from suite.submissions.reproducible import Row
from suite.submissions.retraining import Failed, Planned, figure
from tasks.base import Metric

#: Of the means of an honest row, the fraction that is within what is allowed.
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Reproduced:
    """A row that was trained again.

    records: paths of the records of its seeds.
    figures: what was compared; None where a run failed.
    fault: what is wrong, in one line; empty where nothing is.
    """

    row: Row
    records: tuple[str, ...]
    figures: Reproduction | None
    fault: str = ""

    @property
    def line(self) -> str:
        """What was found, where there is no fault."""
        assert self.figures is not None
        figures, metric = self.figures, primary_metric(next(iter(self.row.runs.values())))
        values = (figures.recorded, figures.trained, abs(figures.difference), figures.allowed)
        recorded, trained, difference, allowed = (format_number(metric, value) for value in values)
        return (
            f"{self.row.label}: test {metric.name} {recorded} recorded, {trained} here over seeds "
            f"{', '.join(map(str, figures.seeds))}; they differ by {difference} ({allowed} allowed)"
        )


def reproduce(planned: Planned, say: Callable[[str], None]) -> Reproduced:
    """Trains a row's runs again, each an ordinary run in a folder of its own: the same call continues where it stopped.

    Args:
        planned: from `plan`.
        say: called with what is trained next.

    Returns:
        The comparison.

    Raises:
        Stopped: a signal stopped a run.
    """
    row, paths = planned.row, tuple(planned.drawn)
    if planned.fault:
        return Reproduced(row, paths, None, planned.fault)
    first = planned.drawn[paths[0]]
    metric = primary_metric(first)
    trained, nudged = list[float](), list[float]()
    try:
        for path, made in planned.drawn.items():
            config, calibrating = planned.configs[path]
            say(f"{row.label} · seed {made.seed}, as recorded")
            trained.append(figure(config, metric.name))
            say(f"{row.label} · seed {made.seed}, calibrating")
            nudged.append(figure(calibrating, metric.name))
    except Failed as problem:
        return Reproduced(row, paths, None, f"trained again, {problem}")
    recorded = [made.metrics["test"][metric.name] for made in planned.drawn.values()]
    deviation = math.sqrt(fmean((one - other) ** 2 for one, other in zip(trained, nudged, strict=True)))
    found = Reproduction(
        task=first.task,
        scale=first.scale,
        mixer=row.mixer,
        metric=metric.name,
        seeds=tuple(made.seed for made in planned.drawn.values()),
        recorded=fmean(recorded),
        trained=fmean(trained),
        deviation=deviation,
        allowed=allowed(deviation, len(recorded), metric, first.n_evaluated["test"]),
    )
    return Reproduced(row, paths, found, "" if found.agrees else _fault(found, metric))


def allowed(deviation: float, seeds: int, metric: Metric, examples: int) -> float:
    """How far the means of an honest row and of its reproduction may be apart.

    Args:
        deviation: of a run between machines, calibrated over as many seeds.
        seeds: of the means.
        metric: of the figures.
        examples: of the test set.

    Returns:
        The bound of a deviation that is itself estimated from `seeds` differences: Student's quantile, which approaches
        2 as they become many, times the deviation of a mean. It is at least what no reader of the board can see: half
        of the last digit that is shown, and of accuracies one example.
    """
    quantile = float(stdtrit(seeds, (1 + CONFIDENCE) / 2))
    percent = metric.unit == "%"
    digit = 0.5 * 10.0**-metric.digits / (100 if percent else 1)
    return max(quantile * deviation / math.sqrt(seeds), digit, 1 / examples if percent else 0.0)


def _fault(found: Reproduction, metric: Metric) -> str:
    seeds = ", ".join(map(str, found.seeds))
    return (
        f"metrics.test.{found.metric}: over seeds {seeds} its mean is {format_number(metric, found.recorded)}; trained "
        f"again here it is {format_metric(metric, found.trained)}, which differs by "
        f"{format_number(metric, abs(found.difference))} where {format_number(metric, found.allowed)} is allowed"
    )

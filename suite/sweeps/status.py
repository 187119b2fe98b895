"""What a sweep shows while it runs, on 80 columns."""

from __future__ import annotations

import time
from collections.abc import Sequence

from rich.table import Table

from suite.console import format_metric
from suite.sweeps.entrant import Entrant
from suite.sweeps.scheduler import Progress


def planned(each: Entrant) -> int:
    """The runs of a race, as far as they are known.

    Args:
        each: the race.

    Returns:
        A number of runs that grows where the window moves.
    """
    return each.race.runs_with(each.state().rates)


def remaining_s(found: Sequence[Entrant], progress: Progress, jobs: int) -> float | None:
    """The expected time until all races have ended.

    Args:
        found: the races.
        progress: of the sweep.
        jobs: runs at once.

    Returns:
        Seconds; None before the first run of the sweep has ended.
    """
    if not progress.ran:
        return None
    left = sum(planned(each) - len(each.scores) for each in found if not each.failed)
    partly = sum(run.step / run.steps for run in progress.running if run.steps)
    return max(left - partly, 0.0) * progress.seconds / progress.ran / jobs


def leader(found: Sequence[Entrant], task: str) -> tuple[str, str]:
    """The race that leads a task on validation, by the best mean of a rate over the seeds that all its races have.

    Args:
        found: the races.
        task: the task's name.

    Returns:
        Label and figure; empty before any run has ended.
    """
    best: tuple[float, Entrant, float] | None = None
    for each in (e for e in found if e.task_name == task):
        by_rate: dict[float, list[float]] = {}
        for (rate, _), score in each.scores.items():
            if score.valid is not None:
                by_rate.setdefault(rate, []).append(score.valid)
        sign = 1.0 if each.metric.higher_is_better else -1.0
        for values in by_rate.values():
            mean = sum(values) / len(values)
            if best is None or sign * mean > best[0]:
                best = (sign * mean, each, mean)
    return (best[1].label, format_metric(best[1].metric, best[2])) if best else ("", "")


def status_table(found: Sequence[Entrant], progress: Progress, jobs: int) -> Table:
    """The live table of a sweep.

    Args:
        found: the races.
        progress: of the sweep.
        jobs: runs at once.

    Returns:
        One line per task, its races summed up, and what is running.
    """
    table = Table(box=None, pad_edge=False, header_style="bold", width=80)
    for name, ratio in (("task", 3), ("done", 1), ("running", 4), ("failed", 1), ("leads on validation", 4)):
        table.add_column(name, ratio=ratio, no_wrap=True, overflow="ellipsis")
    for task in dict.fromkeys(each.task_name for each in found):
        of_task = [each for each in found if each.task_name == task]
        running = [run for run in progress.running if run.entrant in of_task]
        text = ", ".join(f"{run.entrant.label} {run.step}/{run.steps or '?'}" for run in running)
        done, failed = (sum(len(part) for part in parts) for parts in _counts(of_task))
        name, figure = leader(found, task)
        total = sum(planned(each) for each in of_task)
        cells = (task, f"{done}/{total}", text, str(failed), f"{name} {figure}")
        table.add_row(*cells)
    left = remaining_s(found, progress, jobs)
    table.caption = "" if left is None else f"about {left / 60:.0f} min left"
    return table


def _counts(of_task: Sequence[Entrant]) -> tuple[list[list[object]], list[list[object]]]:
    return [list(each.scores) for each in of_task], [list(each.failed) for each in of_task]


def summary_line(found: Sequence[Entrant], progress: Progress, jobs: int) -> str:
    """The progress of a sweep where there is no terminal.

    Args:
        found: the races.
        progress: of the sweep.
        jobs: runs at once.

    Returns:
        One line.
    """
    done, total = sum(len(each.scores) for each in found), sum(planned(each) for each in found)
    left = remaining_s(found, progress, jobs)
    clock = time.strftime("%H:%M:%S")
    ending = f", about {left / 60:.0f} min left" if left else ""
    return f"{clock} {done} of {total} runs done, {len(progress.running)} running{ending}"

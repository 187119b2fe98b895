"""The runs of a sweep in their order: which starts next, what its end means for its race, and what is tried again."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field

from suite.sweeps.entrant import Entrant, Score
from suite.sweeps.executor import Died, Ended, Executor, Failed, Key, Step, Stopped, Work

POLL_S = 0.5


@dataclass
class Running:
    """A run in progress."""

    entrant: Entrant
    rate: float
    seed: int
    began: float = field(default_factory=time.monotonic)
    step: int = 0
    steps: int = 0

    @property
    def name(self) -> str:
        """How messages name it."""
        return f"{self.entrant.task_name} · {self.entrant.label} · lr {self.rate:g} · seed {self.seed}"


@dataclass
class Progress:
    """What a sweep has done so far, for tables.

    running: runs in progress.
    errors: one line for each run that failed.
    ran: runs that this sweep carried out itself, and the seconds that they took.
    """

    running: list[Running] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    ran: int = 0
    seconds: float = 0.0


def next_run(entrants: Sequence[Entrant], taken: Collection[Key]) -> Key | None:
    """The run that should start next: the races advance together, so that early on every mixer has some figures.

    Args:
        entrants: all races.
        taken: runs that are in progress.

    Returns:
        Index of the entrant, rate and seed; None where nothing can start now.
    """
    best = None
    for index, each in enumerate(entrants):
        for rate, seed in each.state().missing:
            if (index, rate, seed) in taken:
                continue
            ahead = len(each.scores) + sum(i == index for i, _, _ in taken)
            if best is None or ahead < best[0]:
                best = (ahead, (index, rate, seed))
            break
    return best[1] if best else None


def carry_out(
    entrants: Sequence[Entrant],
    executor: Executor,
    *,
    show: Callable[[Progress], None],
    stopped: Callable[[], bool],
) -> Progress:
    """Runs all races to their ends, or until it is asked to stop. Runs in progress are then stopped at a checkpoint.

    Args:
        entrants: the races; their scores are filled in.
        executor: what carries out the runs; it is entered here.
        show: called whenever something has changed, and twice a second.
        stopped: whether to stop.

    Returns:
        What was done.

    Raises:
        UserError: the executor cannot be used.
    """
    progress, running, lost = Progress(), dict[Key, Running](), Counter[Key]()
    with executor:
        while True:
            if stopped():
                executor.stop()
            else:
                _start_runs(entrants, executor, running)
            if not running:
                return progress
            for key, report in executor.reports(POLL_S):
                if isinstance(report, Step):
                    running[key].step, running[key].steps = report.step, report.steps
                    continue
                run = running.pop(key)
                lost[key] += isinstance(report, Died)
                if not (isinstance(report, Died) and lost[key] < executor.attempts):
                    _conclude(run, report, progress)
            progress.running = list(running.values())
            show(progress)


def _start_runs(entrants: Sequence[Entrant], executor: Executor, running: dict[Key, Running]) -> None:
    while len(running) < executor.slots and (key := next_run(entrants, running)) is not None:
        index, rate, seed = key
        each = entrants[index]
        running[key] = Running(each, rate, seed)
        pictures = seed == each.race.seeds[0]
        executor.start(key, Work(each.config(rate, seed).canonical(), each.data_dir, pictures))


def _conclude(run: Running, report: Ended | Failed | Died | Stopped, progress: Progress) -> None:
    """Enters the end of a run into its race; one that was interrupted stays missing."""
    if isinstance(report, Stopped) or (isinstance(report, Ended) and report.score.status == "interrupted"):
        return
    if isinstance(report, Ended) and report.score.status in ("finished", "diverged"):
        run.entrant.scores[run.rate, run.seed] = report.score
        progress.ran, progress.seconds = progress.ran + 1, progress.seconds + time.monotonic() - run.began
        if report.score.valid is None:
            progress.errors.append(f"{run.name}: {report.score.status} without a figure; run {report.run}")
        return
    run.entrant.scores[run.rate, run.seed] = Score(None, "failed")
    reason = f"run {report.run} failed" if isinstance(report, Ended) else report.reason
    progress.errors.append(f"{run.name}: {reason}")

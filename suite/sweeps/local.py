"""Running a sweep on this machine: a process per job, each with one run at a time."""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from suite.sweeps.entrant import Entrant, Score
from suite.sweeps.worker import work

ATTEMPTS = 2
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


class _Worker:
    """A process and its pipe; it starts when it first gets a run."""

    def __init__(self, *arguments: Any) -> None:
        self.arguments = arguments  # of `work`, after the pipe
        self.process: BaseProcess | None = None
        self.pipe: Connection
        self.run: Running | None = None

    def give(self, run: Running, device: str) -> None:
        if self.process is not None and not self.process.is_alive():
            self.bury()
        if self.process is None:
            context = multiprocessing.get_context("spawn")
            self.pipe, other = context.Pipe()
            self.process = context.Process(target=work, args=(other, *self.arguments))
            self.process.start()
            other.close()
        self.run = run
        config, pictures = run.entrant.config(run.rate, run.seed), run.seed == run.entrant.race.seeds[0]
        message = config.canonical(), run.entrant.data_dir, device, pictures
        with suppress(OSError):  # it has just died, which receiving from it reports
            self.pipe.send(message)

    def bury(self) -> None:
        """Forgets a process that has died; the next run starts another."""
        if self.process is not None:
            self.process.kill()  # it may have closed its pipe without ending
            self.process.join()
            self.process = None

    def close(self) -> None:
        if self.process is None:
            return
        if self.run is None:
            with suppress(OSError):
                self.pipe.send(None)
        self.process.join(timeout=60)
        if self.process.is_alive():
            self.process.kill()


def next_run(entrants: Sequence[Entrant], taken: set[tuple[int, float, int]]) -> tuple[int, float, int] | None:
    """The run that should start next: the races advance together, so that early on every mixer has some figures.

    Args:
        entrants: all races.
        taken: runs that are in progress, as (index of the entrant, rate, seed).

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
    *,
    jobs: int,
    threads: int,
    workers: int | None,
    device: str,
    deterministic: bool = False,
    log: Path,
    show: Callable[[Progress], None],
    stopped: Callable[[], bool],
) -> Progress:
    """Runs all races to their ends, or until it is asked to stop. Runs in progress are then stopped at a checkpoint.

    Args:
        entrants: the races; their scores are filled in.
        jobs: processes.
        threads: of each.
        workers: processes of each that load data; None for the default.
        device: `auto`, `cpu` or `cuda:N`.
        deterministic: as `suite run --deterministic`.
        log: file that receives what runs print.
        show: called whenever something has changed, and twice a second.
        stopped: whether to stop.

    Returns:
        What was done.
    """
    progress, attempts = Progress(), dict[tuple[int, float, int], int]()
    with _workers(jobs, threads, workers, log, deterministic) as (processes, stop_all):
        while True:
            if stopped():
                stop_all.set()
            else:
                _start_runs(entrants, processes, progress, device)
            busy = [worker for worker in processes if worker.run]
            if not busy:
                return progress
            ready = wait([worker.pipe for worker in busy], timeout=POLL_S)
            for worker in busy:
                if worker.pipe in ready:
                    _receive(worker, entrants, progress, attempts)
            progress.running = [worker.run for worker in processes if worker.run]
            show(progress)


@contextmanager
def _workers(
    jobs: int, threads: int, loading: int | None, log: Path, deterministic: bool
) -> Iterator[tuple[list[_Worker], Any]]:
    stop_all = multiprocessing.get_context("spawn").Event()
    workers = [_Worker(stop_all, threads, loading, log, deterministic) for _ in range(jobs)]
    before = os.environ.get("OMP_NUM_THREADS")
    os.environ["OMP_NUM_THREADS"] = str(threads)  # read when a worker imports PyTorch
    try:
        yield workers, stop_all
    finally:
        stop_all.set()
        for worker in workers:
            worker.close()
        if before is None:
            del os.environ["OMP_NUM_THREADS"]
        else:
            os.environ["OMP_NUM_THREADS"] = before


def _start_runs(entrants: Sequence[Entrant], workers: Sequence[_Worker], progress: Progress, device: str) -> None:
    for worker in workers:
        if worker.run:
            continue
        indices = {id(each): index for index, each in enumerate(entrants)}
        taken = {(indices[id(w.run.entrant)], w.run.rate, w.run.seed) for w in workers if w.run}
        chosen = next_run(entrants, taken)
        if chosen is None:
            return
        index, rate, seed = chosen
        worker.give(Running(entrants[index], rate, seed), device)


def _receive(
    worker: _Worker, entrants: Sequence[Entrant], progress: Progress, attempts: dict[tuple[int, float, int], int]
) -> None:
    run = worker.run
    assert run is not None
    try:
        kind, what, score = worker.pipe.recv()
    except (EOFError, OSError):
        worker.bury()
        kind, what, score = "died", "its process ended (see sweep.log in the runs folder)", None
    if kind == "step":
        run.step, run.steps = what, score
        return
    worker.run = None
    name = f"{run.entrant.task_name} · {run.entrant.label} · lr {run.rate:g} · seed {run.seed}"
    if kind == "ended" and score.status in ("finished", "diverged"):
        run.entrant.scores[run.rate, run.seed] = score
        progress.ran, progress.seconds = progress.ran + 1, progress.seconds + time.monotonic() - run.began
        if score.valid is None:
            progress.errors.append(f"{name}: {score.status} without a figure; run {what}")
        return
    if kind == "ended" and score.status == "interrupted":
        return
    key = (next(i for i, each in enumerate(entrants) if each is run.entrant), run.rate, run.seed)
    attempts[key] = attempts.get(key, 0) + 1
    if kind == "died" and attempts[key] < ATTEMPTS:
        return
    run.entrant.scores[run.rate, run.seed] = Score(None, "failed")
    progress.errors.append(f"{name}: {what if kind != 'ended' else f'run {what} failed'}")

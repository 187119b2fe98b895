"""Runs of a sweep on this machine: a process per job, each with one run at a time, so that imports are paid once."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from multiprocessing.synchronize import Event
from pathlib import Path
from types import TracebackType
from typing import Self

from suite.sweeps.executor import Died, Key, Report, Settings, Step, Work
from suite.sweeps.stopping import SIGNALS
from suite.sweeps.worker import carry_out_run, in_force, log_to

CLOSE_S = 60.0


@dataclass
class LocalExecutor:
    """Processes of this machine.

    slots: processes.
    settings: of all runs.
    log: file that receives what runs print.
    """

    slots: int
    settings: Settings
    log: Path
    attempts: int = field(default=2, init=False)

    def __enter__(self) -> Self:
        self._stop_all = multiprocessing.get_context("spawn").Event()
        self._processes = [_Process(self, self._stop_all) for _ in range(self.slots)]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop_all.set()
        for process in self._processes:
            process.close()

    def start(self, key: Key, work: Work) -> None:
        """As `Executor.start`."""
        next(process for process in self._processes if process.key is None).give(key, work)

    def reports(self, timeout_s: float) -> list[tuple[Key, Report]]:
        """As `Executor.reports`."""
        busy = [process for process in self._processes if process.key is not None]
        ready = wait([process.pipe for process in busy], timeout=timeout_s)
        return [process.receive() for process in busy if process.pipe in ready]

    def stop(self) -> None:
        """As `Executor.stop`."""
        self._stop_all.set()


class _Process:
    """A process and its pipe; it starts when it first gets a run."""

    def __init__(self, executor: LocalExecutor, stop_all: Event) -> None:
        self.executor, self.stop_all = executor, stop_all
        self.process: BaseProcess | None = None
        self.pipe: Connection
        self.key: Key | None = None

    def give(self, key: Key, work: Work) -> None:
        if self.process is not None and not self.process.is_alive():
            self.bury()
        if self.process is None:
            context, of = multiprocessing.get_context("spawn"), self.executor
            self.pipe, other = context.Pipe()
            self.process = context.Process(target=serve, args=(other, self.stop_all, of.settings, of.log))
            with _omp_threads(of.settings.threads):
                self.process.start()
            other.close()
        self.key = key
        with suppress(OSError):  # it has just died, which receiving from it reports
            self.pipe.send(work)

    def receive(self) -> tuple[Key, Report]:
        assert self.key is not None
        key, report = self.key, Died("its process ended (see sweep.log in the runs folder)")
        try:
            report = self.pipe.recv()
        except (EOFError, OSError):
            self.bury()
        if not isinstance(report, Step):
            self.key = None
        return key, report

    def bury(self) -> None:
        """Forgets a process that has died; the next run starts another."""
        if self.process is not None:
            self.process.kill()  # it may have closed its pipe without ending
            self.process.join()
            self.process = None

    def close(self) -> None:
        if self.process is None:
            return
        if self.key is None:
            with suppress(OSError):
                self.pipe.send(None)
        self.process.join(timeout=CLOSE_S)
        if self.process.is_alive():
            self.process.kill()


@contextmanager
def _omp_threads(count: int) -> Iterator[None]:
    """Sets `OMP_NUM_THREADS` for processes that start inside, which read it when they import PyTorch."""
    before = os.environ.get("OMP_NUM_THREADS")
    os.environ["OMP_NUM_THREADS"] = str(count)
    try:
        yield
    finally:
        if before is None:
            del os.environ["OMP_NUM_THREADS"]
        else:
            os.environ["OMP_NUM_THREADS"] = before


def serve(pipe: Connection, stop_all: Event, settings: Settings, log: Path) -> None:
    """The main function of a process: receives runs and sends back what came of them, until it receives None.

    Args:
        pipe: receives `Work`; sends `Step` and, at the end of a run, another report.
        stop_all: set when runs should stop at their next step.
        settings: of all runs.
        log: receives what runs print.
    """
    multiprocessing.set_start_method(None, force=True)  # loaders start as in a run by itself, not as this process did
    for number in SIGNALS:  # Ctrl-C and schedulers reach all processes; the parent decides
        signal.signal(number, signal.SIG_IGN)
    log_to(log)
    if os.environ.get("SUITE_TRACKING") != "off":
        os.environ["SUITE_TRACKING"] = "later"  # the sweep's own process delivers, so that MLflow is imported once
    line = _Line(pipe, stop_all)
    with in_force(settings), suppress(EOFError):  # the sweep has died
        while (work := pipe.recv()) is not None:
            pipe.send(carry_out_run(work, settings.device, line.send, line.stopped))


class _Line:
    """The connection of a run to its sweep; a run also stops when the sweep has died."""

    def __init__(self, pipe: Connection, stop_all: Event) -> None:
        self.pipe, self.stop_all, self.parent, self.closed = pipe, stop_all, os.getppid(), False

    def send(self, step: Step) -> None:
        try:
            self.pipe.send(step)
        except OSError:
            self.closed = True

    def stopped(self) -> bool:
        return self.closed or self.stop_all.is_set() or os.getppid() != self.parent

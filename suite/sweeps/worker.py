"""A process that carries out one run after another, so that imports are paid once."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from contextlib import suppress
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

from suite.training.signals import IMPATIENT, PATIENT

REPORT_S = 0.5
#: They ask a sweep to stop.
SIGNALS = (*IMPATIENT, *PATIENT)


def work(
    pipe: Connection, stop_all: Event, threads: int, workers: int | None, log: Path, deterministic: bool = False
) -> None:
    """Receives configs and sends back what came of them, until it receives None.

    Args:
        pipe: receives `(config, data_dir, device, pictures)`, the config as plain values; sends
            `("step", step, steps)` and, at the end of a run, `("ended", record id, score)` or
            `("error", message, None)`.
        stop_all: set when runs should stop at their next step.
        threads: that compute.
        workers: processes that load data; None for the default.
        log: receives what runs print.
        deterministic: as `suite run --deterministic`.
    """
    multiprocessing.set_start_method(None, force=True)  # loaders start as in a run by itself, not as this process did
    for number in SIGNALS:  # Ctrl-C and schedulers reach all processes; the parent decides
        signal.signal(number, signal.SIG_IGN)
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    if os.environ.get("SUITE_TRACKING") != "off":
        os.environ["SUITE_TRACKING"] = "later"  # the sweep's own process delivers, so that MLflow is imported once

    from suite.training import processors
    from suite.training.deterministic import mode

    with processors.using(threads, workers), mode.using(deterministic), suppress(EOFError):  # the sweep has died
        while (message := pipe.recv()) is not None:
            pipe.send(_carry_out(message, pipe, stop_all))


def _carry_out(
    message: tuple[dict[str, Any], Path | None, str, bool], pipe: Connection, stop_all: Event
) -> tuple[Any, ...]:
    commanded = time.monotonic()
    from backbones.mixers.errors import MixerError
    from suite.errors import UserError, first_line
    from suite.models.written import resolve_written
    from suite.sweeps.entrant import score_of
    from suite.training.run import resume_newest
    from tasks.errors import DataError

    content, data_dir, device, pictures = message
    try:
        resolved = resolve_written(content)
        observer = _Reporter(pipe, stop_all)
        outcome = resume_newest(
            resolved.config,
            data_dir=data_dir,
            device=device,
            candidate=resolved.candidate,
            observer=observer,
            stop=observer.stop,
            commanded=commanded,
            pictures=pictures,
        )
    except (UserError, DataError, MixerError) as problem:
        return "error", str(problem), None
    except Exception as problem:  # the sweep continues with its other runs
        return "error", f"{type(problem).__name__}: {first_line(problem)}", None
    return "ended", outcome.record.id, score_of(outcome.record)


class _Reporter:
    """An observer that reports steps to the sweep, and stops the run when the sweep stops or has died."""

    def __init__(self, pipe: Connection, stop_all: Event) -> None:
        from suite.training.signals import Stop

        self.pipe, self.stop_all, self.stop = pipe, stop_all, Stop()
        self.parent, self.reported, self.steps = os.getppid(), 0.0, 0

    def started(self, step: int, total: int) -> None:
        self.steps = total
        self.stepped(step, 0.0, 0.0, 0.0)

    def stepped(self, step: int, loss: float, lr: float, grad_norm: float) -> None:
        if self.stop_all.is_set() or os.getppid() != self.parent:
            self.stop.request(signal.SIGTERM)
        now = time.monotonic()
        if now - self.reported > REPORT_S:
            self.reported = now
            self._send(("step", step, self.steps))

    def validated(self, step: int, metrics: dict[str, float]) -> None:
        """The sweep sees figures of ended runs only."""

    def before_checkpoint(self, step: int) -> None:
        """Nothing is buffered here."""

    def warn(self, message: str) -> None:
        os.write(2, f"{message}\n".encode())

    def _send(self, message: tuple[Any, ...]) -> None:
        try:
            self.pipe.send(message)
        except OSError:  # the sweep has died
            self.stop.request(signal.SIGTERM)

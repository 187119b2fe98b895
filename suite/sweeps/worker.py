"""One run of a sweep in a process of its own: what every executor calls there."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from suite.sweeps.executor import Ended, Failed, Settings, Step, Work

REPORT_S = 0.5
_RETRY_S = 1.0


def opened_log(path: Path) -> int:
    """Opens a log that only its owner can read, to write at its end.

    Args:
        path: of the file, which is created if needed.

    Returns:
        A file descriptor.
    """
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)


def log_to(path: Path) -> None:
    """Sends what this process prints to the end of a file.

    Args:
        path: of the file, which is created if needed.
    """
    descriptor = opened_log(path)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.close(descriptor)


@contextmanager
def in_force(settings: Settings) -> Iterator[None]:
    """Within the block runs of this process are executed as a sweep wants them.

    Args:
        settings: of the sweep.

    Yields:
        Nothing.

    Raises:
        UserError: this process cannot be deterministic.
    """
    from suite.training import processors
    from suite.training.deterministic import mode

    with processors.using(settings.threads, settings.workers), mode.using(settings.deterministic):
        yield


def carry_out_run(
    work: Work, device: str, send: Callable[[Step], None], stopped: Callable[[], bool], patience_s: float = 0.0
) -> Ended | Failed:
    """Trains a run to its record, from its last checkpoint where it has one.

    Args:
        work: the run.
        device: `auto`, `cpu` or `cuda:N`.
        send: called with the step that it has reached, at most twice a second.
        stopped: called before every step; whether to write a checkpoint and end.
        patience_s: how long to wait for a process that runs the same config, such as one that is thought lost.

    Returns:
        What came of it.
    """
    commanded = time.monotonic()
    from backbones.mixers.errors import MixerError
    from suite.errors import UserError, first_line
    from suite.models.written import resolve_written
    from suite.records.runs_folder import RunningElsewhere
    from suite.sweeps.entrant import score_of
    from suite.training.run import resume_newest
    from tasks.errors import DataError

    while True:
        try:
            resolved = resolve_written(work.config)
            observer = _Reporter(send, stopped)
            outcome = resume_newest(
                resolved.config,
                data_dir=work.data_dir,
                device=device,
                candidate=resolved.candidate,
                observer=observer,
                stop=observer.stop,
                commanded=commanded,
                pictures=work.pictures,
            )
        except RunningElsewhere as problem:
            if time.monotonic() - commanded >= patience_s or stopped():
                return Failed(str(problem))
            time.sleep(_RETRY_S)
        except (UserError, DataError, MixerError) as problem:
            return Failed(str(problem))
        except Exception as problem:  # the sweep continues with its other runs
            return Failed(f"{type(problem).__name__}: {first_line(problem)}")
        else:
            return Ended(outcome.record.id, score_of(outcome.record))


class _Reporter:
    """An observer that reports steps to the sweep, and stops the run when the sweep stops or has died."""

    def __init__(self, send: Callable[[Step], None], stopped: Callable[[], bool]) -> None:
        from suite.training.signals import Stop

        self.send, self.stopped, self.stop = send, stopped, Stop()
        self.reported, self.steps = 0.0, 0

    def started(self, step: int, total: int) -> None:
        self.steps = total
        self.stepped(step, 0.0, 0.0, 0.0)

    def stepped(self, step: int, loss: float, lr: float, grad_norm: float) -> None:
        now = time.monotonic()
        if now - self.reported > REPORT_S:
            self.reported = now
            self.send(Step(step, self.steps))
        if self.stopped():
            self.stop.request(signal.SIGTERM)

    def validated(self, step: int, metrics: dict[str, float]) -> None:
        """The sweep sees figures of ended runs only."""

    def before_checkpoint(self, step: int) -> None:
        """Nothing is buffered here."""

    def warn(self, message: str) -> None:
        os.write(2, f"{message}\n".encode())

"""What a run reports while it trains, and to whom."""

from __future__ import annotations

import time

from suite.tracking.client import Tracker
from suite.training.job import Job
from suite.training.loop.observer import Observer


class RunObserver:
    """Reports the training loop's progress to the terminal (or the caller's observer) and to tracking."""

    def __init__(self, job: Job, shown: Observer, tracker: Tracker) -> None:
        self.job, self.shown, self.tracker = job, shown, tracker

    def started(self, step: int, total: int) -> None:
        self.job.start_s = time.monotonic() - self.job.commanded
        self.shown.started(step, total)

    def stepped(self, step: int, loss: float, lr: float, grad_norm: float) -> None:
        self.shown.stepped(step, loss, lr, grad_norm)
        self.tracker.log(step, {"train/loss": loss, "train/lr": lr, "train/grad_norm": grad_norm})

    def validated(self, step: int, metrics: dict[str, float]) -> None:
        self.shown.validated(step, metrics)
        self.tracker.log(step, {f"valid/{name}": value for name, value in metrics.items()})

    def before_checkpoint(self, step: int) -> None:
        self.shown.before_checkpoint(step)
        self.tracker.flush()

    def warn(self, message: str) -> None:
        self.shown.warn(message)


class Quiet:
    """An observer that shows nothing."""

    def started(self, step: int, total: int) -> None: ...

    def stepped(self, step: int, loss: float, lr: float, grad_norm: float) -> None: ...

    def validated(self, step: int, metrics: dict[str, float]) -> None: ...

    def before_checkpoint(self, step: int) -> None: ...

    def warn(self, message: str) -> None: ...

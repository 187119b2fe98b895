"""Ways to make a run, to stop in the middle of one, and to fill its disk."""

from __future__ import annotations

import contextlib
import resource
from collections.abc import Callable

from suite.records import record
from suite.records.schema import Record
from suite.training.outcome import Outcome
from suite.training.run import start
from suite.training.trainer import Trainer
from tests.suite.tiny import tiny_config


def run(task: str = "fashion-mnist", mixer: str = "softmax", *sets: str, seed: int = 0) -> Outcome:
    return start(tiny_config(task, mixer, *sets, seed=seed), data_dir=None, device="cpu")


def recorded(outcome: Outcome) -> Record:
    """The record as its file has it."""
    assert outcome.path is not None
    return record.read(outcome.path)


def at_step(monkeypatch, step: int, action: Callable[[], object]) -> None:
    """Does something right after an update."""
    after = Trainer._after_update

    def wrapped(self, loss, norm):
        after(self, loss, norm)
        if self.step == step:
            action()

    monkeypatch.setattr(Trainer, "_after_update", wrapped)


@contextlib.contextmanager
def largest_file(size):
    """No file grows beyond `size` bytes, as on a full disk. Only around a command: the report of the tests themselves
    may be longer.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

"""Runs that other code starts, as a worker of a sweep would: in another thread, with its own observer and stop."""

from __future__ import annotations

import signal
import threading

import pytest

from suite.models.resolve import resolve_run
from suite.training.outcome import Outcome
from suite.training.run import resume, start
from suite.training.signals import Stop
from tests.suite.tiny import tiny_config, tiny_sets
from tests.suite.training.test_resume import equal_runs


@pytest.fixture(autouse=True)
def _untracked(monkeypatch):
    monkeypatch.setenv("SUITE_TRACKING", "off")


class Recorder:
    """An observer that keeps what it sees, and requests a stop after a step."""

    def __init__(self, stop: Stop, stop_after: int = 0) -> None:
        self.stop, self.stop_after = stop, stop_after
        self.steps: list[int] = []
        self.validations: list[int] = []
        self.warnings: list[str] = []

    def started(self, step: int, total: int) -> None:
        self.begin, self.total = step, total

    def stepped(self, step: int, loss: float, lr: float, grad_norm: float) -> None:
        self.steps.append(step)
        if step == self.stop_after:
            self.stop.request(signal.SIGTERM)

    def validated(self, step: int, metrics: dict[str, float]) -> None:
        self.validations.append(step)

    def before_checkpoint(self, step: int) -> None: ...

    def warn(self, message: str) -> None:
        self.warnings.append(message)


def in_a_thread(function) -> Outcome:
    """What the function returns when it runs in another thread, where no signal handler can be set."""
    results: list[Outcome] = []
    thread = threading.Thread(target=lambda: results.append(function()))
    thread.start()
    thread.join(timeout=300)
    [outcome] = results
    return outcome


def test_a_callers_observer_sees_the_run_and_its_stop_ends_it_resumably(runs, capsys):
    whole = start(tiny_config("fashion-mnist", "fem"), data_dir=None, device="cpu").record
    capsys.readouterr()
    stop = Stop()
    first = Recorder(stop, stop_after=3)
    made = resolve_run(task="fashion-mnist", mixer="fem", scale="board", sets=tiny_sets("fashion-mnist"))
    stopped = in_a_thread(
        lambda: start(made.config, data_dir=None, device="cpu", candidate=made.candidate, observer=first, stop=stop)
    )
    assert (stopped.exit_code, stopped.record.status) == (143, "interrupted")
    assert (first.begin, first.total, first.steps, first.validations) == (0, 6, [1, 2, 3], [2])
    second = Recorder(Stop())
    resumed = in_a_thread(
        lambda: resume(stopped.record.id, data_dir=None, device="cpu", observer=second, stop=second.stop)
    )
    assert (second.begin, second.steps, second.validations) == (3, [4, 5, 6], [4, 6])
    assert equal_runs(resumed.record, whole)
    assert capsys.readouterr().err == ""
    assert not [*first.warnings, *second.warnings]

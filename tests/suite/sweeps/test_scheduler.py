"""Scheduling with an executor that trains nothing: what is tried again, what is not, and how a sweep stops."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from types import TracebackType
from typing import Self

import pytest

from suite.sweeps.entrant import Entrant, Score
from suite.sweeps.executor import Died, Ended, Failed, Key, Report, Step, Stopped, Work
from suite.sweeps.plan import Wanted, entrants
from suite.sweeps.scheduler import Progress, carry_out
from tests.suite.tiny import tiny_sets

Answer = Callable[[Key, int], Report]


def finished(key: Key, attempt: int) -> Report:
    return Ended("a-run", Score(key[1] + key[2], "finished"))


class Scripted:
    """An executor whose runs end at once, as a function of the run and its attempt says."""

    def __init__(self, answer: Answer = finished, slots: int = 2, attempts: int = 3) -> None:
        self.answer, self.slots, self.attempts = answer, slots, attempts
        self.started, self.waiting, self.most = Counter[Key](), list[Key](), 0
        self.pictures: dict[Key, bool] = {}
        self.entered = self.left = self.stops = 0

    def __enter__(self) -> Self:
        self.entered += 1
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.left += 1

    def start(self, key: Key, work: Work) -> None:
        assert key not in self.waiting
        self.started[key] += 1
        self.pictures[key] = work.pictures
        self.waiting.append(key)
        self.most = max(self.most, len(self.waiting))

    def reports(self, timeout_s: float) -> list[tuple[Key, Report]]:
        key = self.waiting.pop(0)
        return [(key, Step(3, 6)), (key, self.answer(key, self.started[key]))]

    def stop(self) -> None:
        self.stops += 1


@pytest.fixture
def races() -> list[Entrant]:
    wanted = Wanted(("sotu",), ("softmax", "fem"), "board", (*tiny_sets("sotu"), "lr=1e-3,3e-3"), (0, 1))
    return entrants(wanted)[0]


def swept(races: list[Entrant], executor: Scripted, stopped: Callable[[], bool] = lambda: False) -> Progress:
    progress = carry_out(races, executor, show=lambda _: None, stopped=stopped)
    assert (executor.entered, executor.left) == (1, 1)
    return progress


def test_each_run_is_carried_out_once_and_no_more_at_a_time_than_there_are_slots(races):
    executor = Scripted()
    progress = swept(races, executor)
    assert set(executor.started.values()) == {1}
    assert sum(executor.started.values()) == progress.ran == sum(len(each.scores) for each in races)
    assert executor.most == 2
    assert all(each.state().chosen is not None for each in races)
    assert {key[2] for key, drawn in executor.pictures.items() if drawn} == {0}


def test_runs_that_have_ended_are_not_carried_out_again(races):
    races[0].scores |= {(1e-3, 0): Score(1.0, "finished"), (3e-3, 1): Score(2.0, "diverged")}
    executor = Scripted()
    swept(races, executor)
    assert not {(0, 1e-3, 0), (0, 3e-3, 1)} & executor.started.keys()
    assert executor.started[0, 1e-3, 1] == 1


def test_a_lost_worker_costs_one_attempt_and_the_others_nothing(races):
    executor = Scripted(lambda key, n: Died("lost") if key == (1, 1e-3, 0) and n < 3 else finished(key, n))
    progress = swept(races, executor)
    assert progress.errors == []
    assert executor.started.pop((1, 1e-3, 0)) == 3
    assert set(executor.started.values()) == {1}


def test_a_run_whose_worker_is_always_lost_ends_its_race_with_the_reason(races):
    executor = Scripted(lambda key, n: Died("its machine is lost") if key[0] == 1 else finished(key, n), slots=1)
    progress = swept(races, executor)
    assert progress.errors == ["sotu · fem · lr 0.001 · seed 0: its machine is lost"]
    assert executor.started[1, 1e-3, 0] == executor.attempts
    assert races[0].state().chosen is not None


@pytest.mark.parametrize(
    "report", [Failed("no such file"), Ended("a-run", Score(None, "failed")), Ended("a-run", Score(None, "diverged"))]
)
def test_a_run_that_would_fail_again_is_not_tried_again(races, report):
    executor = Scripted(lambda key, n: report if key == (0, 1e-3, 0) else finished(key, n))
    progress = swept(races, executor)
    assert executor.started[0, 1e-3, 0] == 1
    assert len(progress.errors) == 1
    assert races[0].failed == [(1e-3, 0)]


@pytest.mark.parametrize("report", [Stopped(), Ended("a-run", Score(None, "interrupted"))])
def test_a_stopped_sweep_starts_nothing_more_and_leaves_interrupted_runs_missing(races, report):
    executor = Scripted(lambda key, n: report)
    progress = swept(races, executor, stopped=lambda: len(executor.started) == 2)
    assert sum(executor.started.values()) == 2
    assert executor.stops > 0
    assert (progress.errors, [each.scores for each in races]) == ([], [{}, {}])


def test_an_executor_is_left_when_something_raises(races):
    def interrupted(key: Key, attempt: int) -> Report:
        raise SystemExit(130)

    executor = Scripted(interrupted)
    with pytest.raises(SystemExit):
        carry_out(races, executor, show=lambda _: None, stopped=lambda: False)
    assert executor.left == 1

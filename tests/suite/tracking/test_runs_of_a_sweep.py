"""One process delivers what several runs log, while they are in progress and when they have ended."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from pathlib import Path

import pytest

import suite.tracking.client
from suite.records.collection import read_all
from suite.sweeps.sent import sent
from suite.tracking import backlog
from suite.tracking.catch_up import CatchUp, catch_up
from suite.tracking.process_identity import HOST_TAG, PID_TAG, START_TAG
from suite.tracking.store import RefusedError, Store
from suite.tracking.store_address import tracking_uri
from suite.tracking.worker_handle import WorkerProcess
from tests.suite.sweeps.test_sweep import ARGUMENTS, ROOT
from tests.suite.tracking.tracked_runs import points, statuses, tracker, wait_for

pytestmark = pytest.mark.slow  # each imports MLflow


@pytest.fixture(autouse=True)
def _later(monkeypatch):
    monkeypatch.setenv("SUITE_TRACKING", "later")


def test_runs_that_leave_their_delivery_to_another_process_start_none(home):
    tracked = tracker(home)
    tracked.log(1, {"train/loss": 1.0})
    assert not tracked.delivers
    tracked.finish("FINISHED")
    assert statuses(home) == []
    assert backlog.pending(home) == [home / "run-a"]


def test_one_process_delivers_several_runs_while_they_are_in_progress_and_their_ends(home):
    sending = WorkerProcess(home)
    first = tracker(home, "run-a", run_name="first")
    first.log(1, {"train/loss": 1.0})
    wait_for(lambda: points(home, "train/loss") == [(1, 1.0)], "a point of a run in progress")
    second = tracker(home, "run-b", run_name="second")
    for step in (1, 2):
        second.log(step, {"train/loss": 2.0})
    second.finish("FAILED")
    first.log(2, {"train/loss": 0.5})
    first.finish("FINISHED")
    assert sending.wait_delivered(60)
    assert sending.close()
    assert sorted(statuses(home)) == [("first", "FINISHED"), ("second", "FAILED")]
    assert sorted(points(home, "train/loss")) == [(1, 1.0), (1, 2.0), (2, 0.5), (2, 2.0)]
    assert backlog.pending(home) == []
    assert not (home / "tracking.log").exists()


def test_the_end_of_the_sweep_delivers_what_is_left(home):
    sending = WorkerProcess(home)
    wait_for(lambda: sending.status.request == 0 and sending._alive(), "the process")
    with tracker(home) as tracked:
        tracked.log(1, {"train/loss": 1.0})
    assert sending._process is not None
    assert sending._process.stdin is not None
    sending._process.stdin.close()  # as when the sweep dies
    assert sending._process.wait(120) == 0
    assert [status for _, status in statuses(home)] == ["FINISHED"]
    assert backlog.pending(home) == []


def test_what_the_store_refuses_is_tried_once_and_again_by_the_next_command(home, monkeypatch):
    with tracker(home) as tracked:
        tracked.log(1, {"train/loss": 1.0})
    asked: list[str] = []

    def refuse(*_: object) -> None:
        asked.append("")
        raise RefusedError("no")

    with monkeypatch.context() as patch:
        patch.setattr(Store, "log_metrics", refuse)
        sending = CatchUp(home, tracking_uri(home))
        assert sending.deliver() == []
        times = len(asked)
        assert sending.deliver() == []
        assert len(asked) == times
        assert sending.refused == 1
        assert sending.refusal == "no"
    assert backlog.pending(home) == [home / "run-a"]
    assert catch_up(home) == ["run-a"]
    assert points(home, "train/loss") == [(1, 1.0)]


def _unended(home: Path, run: str = "run-a", **tags: str) -> None:
    """The journal of a run whose process is gone, or is on another machine."""
    own = {PID_TAG: "999999999", START_TAG: "1.0", HOST_TAG: socket.gethostname(), **tags}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(suite.tracking.client, "process_tags", lambda: own)
        tracker(home, run, run_name=run).log(1, {"train/loss": 1.0})


def test_a_run_of_another_machine_is_left_to_it(home):
    _unended(home, **{HOST_TAG: "another"})
    assert catch_up(home) == []
    assert statuses(home) == [("run-a", "RUNNING")]
    assert backlog.pending(home) == [home / "run-a"]


def test_a_run_that_was_taken_for_ended_is_due_again_when_it_ends(home):
    with tracker(home) as tracked:
        backlog.remove(home / "run-a")
        tracked.log(1, {"train/loss": 1.0})
    assert backlog.pending(home) == [home / "run-a"]


def test_a_run_that_cannot_be_sent_does_not_keep_the_others_back(home, monkeypatch):
    for run in ("run-a", "run-c"):
        with tracker(home, run, run_name=run) as tracked:
            tracked.log(1, {"train/loss": 1.0})
    (home / "run-0").mkdir()
    backlog.add(home / "run-0", tracking_uri(home))  # without a journal
    real = Store.create_run

    def create(store: Store, experiment: str, name: str, *more: object) -> str:
        if name == "run-a":
            raise ValueError("the store raises for this run")
        return str(real(store, experiment, name, *more))  # type: ignore[arg-type]

    monkeypatch.setattr(Store, "create_run", create)
    sending = CatchUp(home, tracking_uri(home))
    with pytest.raises(ValueError, match="for this run"):
        sending.deliver()
    assert statuses(home) == [("run-c", "FINISHED")]
    assert backlog.pending(home) == [home / "run-0", home / "run-a"]
    assert sending.refused == 1
    assert "run-0" in sending.refusal


def test_a_store_that_is_away_is_tried_with_two_runs_only(home, monkeypatch):
    for run in ("run-a", "run-b", "run-c", "run-d"):
        tracker(home, run).finish("FINISHED")
    asked: list[str] = []

    def experiment(*_: object) -> str:
        asked.append("")
        raise ConnectionError("away")

    monkeypatch.setattr(Store, "experiment", experiment)
    with pytest.raises(ConnectionError):
        CatchUp(home, tracking_uri(home)).deliver()
    assert len(asked) == 2


def test_a_run_that_begins_its_journal_again_is_not_taken_for_the_one_that_died(home):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("suite.tracking.catch_up.may_be_alive", lambda tags: True)
        sending = CatchUp(home, tracking_uri(home))
        _unended(home)
        assert sending.deliver() == []
    tracked = tracker(home, "run-a", run_name="again")  # a new journal in the same folder
    tracked.log(1, {"train/loss": 2.0})
    assert sending.deliver() == []
    assert ("again", "RUNNING") in statuses(home)
    tracked.finish("FINISHED")
    assert sending.deliver() == ["run-a"]
    assert ("again", "FINISHED") in statuses(home)


def test_the_progress_of_sending_grows_over_all_runs(home):
    for run in ("run-a", "run-b"):
        with tracker(home, run) as tracked:
            tracked.log(1, {"train/loss": 1.0})
    seen: list[int] = []
    CatchUp(home, tracking_uri(home)).deliver(progress=seen.append)
    assert len(seen) >= 4
    assert seen == sorted(set(seen))


def test_an_exception_in_a_sweep_does_not_wait_for_the_store(home, monkeypatch):
    monkeypatch.setenv("SUITE_TRACKING", "on")
    monkeypatch.setattr(WorkerProcess, "wait_delivered", lambda *_: pytest.fail("it waited"))
    with pytest.raises(KeyboardInterrupt), sent(home, pytest.fail, pytest.fail):
        raise KeyboardInterrupt


def test_what_a_sweep_could_not_send_is_due_at_once(home, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    warnings: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SUITE_TRACKING", "on")
        sending = sent(home, lambda _: None, warnings.append)
        with sending:
            patch.setenv("SUITE_TRACKING", "later")
            tracker(home).finish("FINISHED")
    [warning] = warnings
    assert "the next command sends it" in warning
    assert backlog._is_due(home / "run-a")


def test_a_sweep_delivers_all_its_runs_and_draws_the_pictures_of_one_seed(runs, monkeypatch):
    monkeypatch.delenv("SUITE_TRACKING")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    swept = subprocess.run(
        [sys.executable, "-m", "suite", *ARGUMENTS, "--json"], capture_output=True, text=True, check=False
    )
    assert swept.returncode == 0, swept.stderr
    made = read_all().records
    (race,) = json.loads(swept.stdout)["races"]
    assert len(made) == len(race["runs"])
    journals = [folder for folder in runs.iterdir() if (folder / "tracking.jsonl").exists()]
    assert len(journals) == len(made)
    ended = [status for name, status in statuses(runs) if " · seed " in name]
    assert ended == ["FINISHED"] * len(made)
    assert any(name.startswith("#") for name, _ in statuses(runs)), "the board is published at the end"
    assert backlog.pending(runs) == []
    assert {record.seed for record in made if _has_picture(runs / record.id)} == {0}
    assert {record.seed for record in made if not _has_picture(runs / record.id)} == {1}


def _has_picture(folder: Path) -> bool:
    return (folder / "attention.png").exists()

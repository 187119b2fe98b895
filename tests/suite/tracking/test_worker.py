"""The worker process, with real processes, stores, kills and a real local server."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time

import psutil
import pytest

from suite.tracking.delivery import upload
from suite.tracking.journal import JOURNAL
from suite.tracking.publishing import close_dead_runs
from suite.tracking.store import Store
from suite.tracking.store_address import tracking_uri
from tests.suite.tracking.tracked_runs import (
    free_port,
    mlflow_server,
    points,
    rows,
    statuses,
    tracker,
    wait_for,
    worker_process,
)

# A stand-in for a training process: logs a step every few milliseconds, up to a step or until it is killed.
_TRAIN = """
import sys, time
from pathlib import Path
from tests.suite.tracking.tracked_runs import tracker
home, run, first, last = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
resume = sys.argv[5] == "resume"
with tracker(home, run, resume=resume, run_name=run) as tracked:
    for step in range(first, last):
        tracked.log(step, {"train/loss": 1 / (step + 1)})
        time.sleep(0.002)
"""


@pytest.fixture
def train():
    """Starts the stand-in; processes that still run at the end of the test are killed."""
    started = []

    def start(home, run="run-a", first=0, last=10**9, resume=False, code=_TRAIN):
        arguments = [str(home), run, str(first), str(last), "resume" if resume else "start"]
        started.append(
            subprocess.Popen(
                [sys.executable, "-c", code, *arguments], start_new_session=True, stderr=subprocess.DEVNULL
            )
        )
        return started[-1]

    yield start
    for process in started:
        if process.poll() is None:
            _kill(process)


def _kill(process):
    process.send_signal(signal.SIGKILL)
    process.wait(30)


def _journal_length(home, run="run-a"):
    journal = home / run / JOURNAL
    return journal.read_bytes().count(b"\n") if journal.exists() else 0


def _store_points(home):
    try:
        return points(home, "train/loss")
    except sqlite3.OperationalError:  # not created yet
        return []


@pytest.mark.slow
def test_a_run_arrives_with_its_final_status(home):
    warnings: list[str] = []
    with tracker(home, warnings=warnings) as tracked:
        for step in range(20):
            tracked.log(step, {"train/loss": float(step)})
        tracked.flush()
        run = tracked.wait()
        assert run is not None
        assert points(home, "train/loss") == [(step, float(step)) for step in range(20)]
        tracked.log(20, {"train/loss": 20.0})
        worker = worker_process(tracked)
    assert worker.poll() == 0
    assert (run.run_id, run.uri) == (rows(home, "select run_uuid from runs")[0][0], "sqlite:///mlflow.db")
    assert len(points(home, "train/loss")) == 21
    assert statuses(home) == [("fem · quick · seed 0", "FINISHED")]
    assert warnings == []
    assert sorted(path.name for path in (home / "run-a").iterdir()) == [JOURNAL, "tracking.lock", "tracking.state.json"]


@pytest.mark.slow
def test_a_killed_run_is_ended_by_its_worker_and_can_be_resumed(home, train):
    process = train(home)
    wait_for(lambda: len(_store_points(home)) > 100, "points arrive")
    _kill(process)
    wait_for(lambda: statuses(home)[0][1] == "KILLED", "the worker ends the run")
    logged = len(_store_points(home))
    assert logged >= _journal_length(home) - 3  # all but start, finish and perhaps an incomplete line
    resumed = train(home, first=logged // 2, last=logged + 50, resume=True)
    assert resumed.wait(180) == 0
    assert _store_points(home) == [(step, 1 / (step + 1)) for step in range(logged + 50)]
    assert statuses(home) == [("run-a", "FINISHED")]


@pytest.mark.slow
def test_a_run_resumed_right_after_a_kill_ends_as_finished(home, train):
    process = train(home)
    wait_for(lambda: len(_store_points(home)) > 100, "points arrive")
    _kill(process)
    logged = _journal_length(home)
    assert train(home, first=0, last=logged + 500, resume=True).wait(180) == 0
    assert _store_points(home) == [(step, 1 / (step + 1)) for step in range(logged + 500)]
    assert statuses(home) == [("run-a", "FINISHED")]


@pytest.mark.slow
def test_when_run_and_worker_are_killed_the_doctor_ends_the_run(home, train):
    dead, alive = train(home, "dead"), train(home, "alive")
    wait_for(lambda: len(_store_points(home)) > 100 and len(statuses(home)) == 2, "both runs are in the store")
    workers = psutil.Process(dead.pid).children()
    assert len(workers) == 1
    workers[0].kill()
    _kill(dead)
    assert dict(statuses(home)) == {"dead": "RUNNING", "alive": "RUNNING"}
    closed = close_dead_runs(home)
    assert [line.split(" (")[0] for line in closed] == ["dead"]
    assert dict(statuses(home)) == {"dead": "KILLED", "alive": "RUNNING"}
    _kill(alive)
    wait_for(lambda: dict(statuses(home))["alive"] == "KILLED", "the other worker ends its run")


@pytest.mark.slow
def test_ctrl_c_and_sigterm_to_the_process_group_lose_nothing(home, train):
    code = _TRAIN.replace(
        "import sys, time", "import signal, sys, time\nsignal.signal(signal.SIGTERM, lambda *_: sys.exit(143))"
    )
    for run, number, returned in (("int", signal.SIGINT, None), ("term", signal.SIGTERM, 143)):
        process = train(home, run, code=code)
        wait_for(
            lambda name=run: name in dict(statuses(home)) if _store_points(home) else False, "the run is in the store"
        )
        os.killpg(process.pid, number)
        ended = process.wait(120)
        assert returned is None or ended == returned
        assert dict(statuses(home))[run] == "KILLED"
        logged = _journal_length(home, run) - 2
        assert (
            len(points(home, "train/loss", rows(home, "select run_uuid from runs where name = ?", run)[0][0])) == logged
        )


@pytest.mark.slow
def test_runs_that_create_the_same_store_at_once_all_arrive(tmp_path, train):
    processes = [train(tmp_path, f"run-{n}", last=200) for n in range(4)]
    assert [process.wait(180) for process in processes] == [0, 0, 0, 0]
    assert sorted(statuses(tmp_path)) == [(f"run-{n}", "FINISHED") for n in range(4)]
    assert len(_store_points(tmp_path)) == 800
    assert rows(tmp_path, "select count(*) from experiments where name = 'fashion-mnist'") == [(1,)]
    assert not list(tmp_path.glob("run-*/tracking.log"))


@pytest.mark.slow
def test_without_a_server_the_run_continues_and_is_uploaded_later(tmp_path, empty_store, monkeypatch):
    shutil.copytree(empty_store, tmp_path / "server")
    port, warnings = free_port(), list[str]()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{port}")
    with tracker(tmp_path, warnings=warnings) as tracked:
        for step in range(1500):
            tracked.log(step, {"train/loss": float(step)})
        tracked.artifact_text("notes/certificate.json", "{}")
        tracked.flush()
        assert tracked.wait() is None
    [warning] = warnings
    assert f"cannot reach http://127.0.0.1:{port}" in warning
    assert str(tmp_path / "run-a" / JOURNAL) in warning
    assert "suite upload run-a" in warning
    with mlflow_server(tmp_path / "server", port) as base:
        for _ in range(2):
            run = upload(tmp_path / "run-a", tmp_path)
            assert run.uri == base
        store = Store(tmp_path, base)
        assert store.last_steps(run.run_id) == {"train/loss": 1499}
    served = tmp_path / "server"
    assert points(served, "train/loss") == [(step, float(step)) for step in range(1500)]
    assert statuses(served) == [("fem · quick · seed 0", "FINISHED")]
    assert [path.read_text() for path in (served / "artifacts").rglob("certificate.json")] == ["{}"]
    assert not (tmp_path / "mlflow.db").exists()


@pytest.mark.slow
def test_a_server_that_returns_receives_what_it_missed(tmp_path, empty_store, monkeypatch):
    shutil.copytree(empty_store, tmp_path / "server")
    port, warnings = free_port(), list[str]()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{port}")
    with tracker(tmp_path, warnings=warnings) as tracked:
        tracked.log(0, {"train/loss": 0.0})
        wait_for(lambda: tracked._worker.status.problem, "the worker cannot reach the server")
        with mlflow_server(tmp_path / "server", port):
            tracked.log(1, {"train/loss": 1.0})
            wait_for(
                lambda: tracked.wait(30) is not None and not tracked._worker.status.problem, "the missed points arrive"
            )
        tracked.log(2, {"train/loss": 2.0})
        tracked.flush()
        wait_for(lambda: tracked._worker.status.problem, "the worker cannot reach the server again")
        with mlflow_server(tmp_path / "server", port):
            tracked.finish("FINISHED")
    assert points(tmp_path / "server", "train/loss") == [(0, 0.0), (1, 1.0), (2, 2.0)]
    assert statuses(tmp_path / "server") == [("fem · quick · seed 0", "FINISHED")]
    assert len(warnings) == 2
    assert warnings[1] == "tracking: everything has now been delivered"


@pytest.mark.slow
def test_a_server_that_never_responds_does_not_slow_the_run(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "3")
    warnings: list[str] = []
    with socket.create_server(("127.0.0.1", 0), backlog=50) as silent:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{silent.getsockname()[1]}")
        with tracker(tmp_path, warnings=warnings) as tracked:
            slowest, step = 0.0, 0
            while not (tracked._worker.status.problem and warnings):
                begin = time.perf_counter()
                tracked.log(step, {"train/loss": 1.0})
                tracked.flush()
                slowest, step = max(slowest, time.perf_counter() - begin), step + 1
                time.sleep(0.01)
                assert step < 10_000, "the worker reported no problem"
            worker = worker_process(tracked)
            begin = time.monotonic()
        assert time.monotonic() - begin < 10  # the end of the run waits five seconds once a problem is known
    assert slowest < 1.0  # a flush waits for the disk of a busy machine, never for the server (3 s per request)
    assert len(warnings) == 1
    assert "does not respond in time" in warnings[0]
    assert worker.poll() is not None


@pytest.mark.slow
def test_a_worker_that_dies_gives_a_warning_and_the_run_continues(home):
    warnings: list[str] = []
    with tracker(home, warnings=warnings) as tracked:
        tracked.log(0, {"train/loss": 0.0})
        tracked.wait()
        worker_process(tracked).kill()
        wait_for(lambda: bool(tracked._worker.status.problem), "the tracker notices it")
        tracked.log(1, {"train/loss": 1.0})
        begin = time.monotonic()
    assert time.monotonic() - begin < 2
    assert len(warnings) == 1
    assert "ended unexpectedly" in warnings[0]
    assert upload(home / "run-a", home).run_id
    assert points(home, "train/loss") == [(0, 0.0), (1, 1.0)]
    assert statuses(home)[0][1] == "FINISHED"


@pytest.mark.slow
def test_a_run_that_is_still_tracked_cannot_be_uploaded(home):
    with tracker(home) as tracked:
        tracked.wait()
        with pytest.raises(Exception, match=r"run-a.*still being tracked.*wait"):
            upload(home / "run-a", home)


@pytest.mark.slow
def test_a_tracker_costs_the_training_process_one_sleeping_thread(home):
    """MLflow is not imported here, and the additional thread takes no CPU time."""
    threads = threading.active_count()
    with tracker(home) as tracked:
        assert threading.active_count() == threads + 1
        begin = time.thread_time()
        tracked.wait()
        assert time.thread_time() - begin < 0.1
    assert tracking_uri(home).startswith("sqlite:///")

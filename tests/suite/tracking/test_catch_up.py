"""A store that was away gets what it missed: in smaller requests, while the run ends, or at the next command."""

from __future__ import annotations

import shutil
import socket
from types import SimpleNamespace

import pytest

import suite.tracking.client
from suite.tracking import backlog, delivery
from suite.tracking.catch_up import catch_up
from suite.tracking.delivery import Delivery, upload
from suite.tracking.journal import now_ms
from suite.tracking.process_identity import HOST_TAG, PID_TAG, START_TAG
from suite.tracking.store import Store
from suite.tracking.store_address import tracking_uri
from suite.tracking.worker_handle import WorkerProcess, WorkerStatus
from tests.suite.tracking.tracked_runs import (
    SilentWorker,
    free_port,
    mlflow_server,
    points,
    statuses,
    tracker,
    wait_for,
)

pytestmark = pytest.mark.slow  # each trains, or draws boards


class UndeliveredWorker(SilentWorker):
    """A worker whose store is away at the end of the run."""

    def close(self) -> bool:
        return False


@pytest.fixture
def _no_worker(monkeypatch):
    monkeypatch.setattr(suite.tracking.client, "WorkerProcess", UndeliveredWorker)


def log_some(home, steps=5, run="run-a", **options):
    with tracker(home, run, **options) as tracked:
        for step in range(steps):
            tracked.log(step, {"train/loss": float(step)})


@pytest.mark.usefixtures("_no_worker")
def test_the_next_command_sends_a_run_that_its_store_missed(home, monkeypatch):
    log_some(home)
    started: list[list[str]] = []

    def popen(command, **options):
        started.append(command)
        return SimpleNamespace()

    monkeypatch.setattr("suite.tracking.backlog.subprocess.Popen", popen)
    assert backlog.send_in_background(home)
    assert started[0][-2:] == ["suite.tracking.catch_up", str(home)]
    assert catch_up(home) == ["run-a"]
    assert len(points(home, "train/loss")) == 5
    assert [status for _, status in statuses(home)] == ["FINISHED"]
    assert backlog.pending(home) == []
    assert not backlog.send_in_background(home)


@pytest.mark.usefixtures("_no_worker")
def test_a_store_that_stays_away_is_tried_once_a_minute(home, monkeypatch):
    log_some(home)
    monkeypatch.setattr(Store, "experiment", lambda *_: (_ for _ in ()).throw(ConnectionError("away")))
    with pytest.raises(ConnectionError):
        catch_up(home)
    assert backlog.pending(home) == [home / "run-a"]
    assert not backlog.send_in_background(home)


@pytest.mark.usefixtures("_no_worker")
def test_a_run_goes_only_to_the_store_that_it_was_meant_for(home, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    log_some(home)
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    assert backlog.pending(home) == []
    assert not backlog.send_in_background(home)


@pytest.mark.usefixtures("_no_worker")
def test_an_upload_leaves_nothing_for_the_next_command(home):
    log_some(home)
    upload(home / "run-a", home)
    assert backlog.pending(home) == []


@pytest.mark.usefixtures("_no_worker")
def test_a_run_killed_with_its_worker_gets_its_end(home, monkeypatch):
    monkeypatch.setattr(
        suite.tracking.client,
        "process_tags",
        lambda: {PID_TAG: "999999999", START_TAG: "1.0", HOST_TAG: socket.gethostname()},
    )
    tracked = tracker(home)
    tracked.log(1, {"train/loss": 1.0})
    assert catch_up(home) == ["run-a"]
    assert [status for _, status in statuses(home)] == ["KILLED"]


@pytest.mark.usefixtures("_no_worker")
def test_a_run_in_progress_keeps_its_mark(home):
    tracked = tracker(home)
    tracked.log(1, {"train/loss": 1.0})
    assert catch_up(home) == []
    assert [status for _, status in statuses(home)] == ["RUNNING"]
    assert backlog.pending(home) == [home / "run-a"]


@pytest.mark.usefixtures("_no_worker")
def test_requests_become_smaller_until_a_slow_server_answers_in_time(home, monkeypatch):
    log_some(home, 3000)
    sizes = []
    real = Store.log_metrics

    def slow(store, run_id, batch):
        sizes.append(len(batch))
        if len(batch) > 40:
            raise TimeoutError("timed out")
        real(store, run_id, batch)

    monkeypatch.setattr(Store, "log_metrics", slow)
    sending = Delivery(home, home / "run-a", tracking_uri(home))
    attempts = 0
    while attempts < 100:
        try:
            sending.deliver()
            break
        except TimeoutError:
            attempts += 1
            if attempts == 4:
                monkeypatch.setattr(delivery, "_GROUP", 40)  # it stays as slow: what the size has settled at
    assert len(points(home, "train/loss")) == 3000
    assert sizes[:3] == [1000, 250, 62]


def test_the_end_of_a_run_waits_as_long_as_points_arrive(monkeypatch):
    """Twelve reports of progress, each within the limit, take three times as long as the limit."""
    import threading
    import time

    worker = WorkerProcess.__new__(WorkerProcess)
    worker.status, worker._changed, worker._requests = WorkerStatus(problem="away"), threading.Condition(), 0
    monkeypatch.setattr(worker, "_alive", lambda: True)
    monkeypatch.setattr(worker, "_process", None, raising=False)

    def deliver():
        for offset in range(1, 13):
            time.sleep(0.1)
            with worker._changed:
                done = offset == 12
                worker.status = WorkerStatus("r", "u", int(done), delivered=done, offset=offset)
                worker._changed.notify_all()

    threading.Thread(target=deliver).start()
    assert worker.wait_delivered(0.4) is True


def test_times_of_points_never_go_back_when_the_clock_is_set(monkeypatch):
    before = now_ms()
    monkeypatch.setattr("time.time_ns", lambda: 0)
    monkeypatch.setattr("time.time", lambda: 0.0)
    assert now_ms() >= before


def test_a_server_that_is_back_at_the_end_gets_the_whole_run(tmp_path, empty_store, monkeypatch):
    """As a server that was killed for a while: the run's end sends everything, and the run does not stay RUNNING."""
    shutil.copytree(empty_store, tmp_path / "server")
    port, warnings = free_port(), list[str]()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{port}")
    tracked = tracker(tmp_path, warnings=warnings)
    with mlflow_server(tmp_path / "server", port):
        tracked.log(0, {"train/loss": 0.0})
        assert tracked.wait() is not None
    for step in range(1, 1500):
        tracked.log(step, {"train/loss": float(step), "train/lr": 1e-3, "train/grad_norm": 1.0})
    tracked.flush()
    wait_for(lambda: tracked._worker.status.problem, "the worker notices that the server is away")
    with mlflow_server(tmp_path / "server", port):
        tracked.finish("FINISHED")
    assert len(points(tmp_path / "server", "train/loss")) == 1500
    assert [status for _, status in statuses(tmp_path / "server")] == ["FINISHED"]
    assert backlog.pending(tmp_path) == []

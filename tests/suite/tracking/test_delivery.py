"""Delivery from the journal to a real embedded store: everything arrives exactly once, whatever fails in between. These
tests deliver in their own process.
"""

from __future__ import annotations

import os
import shutil
import socket

import pytest

import suite.tracking.client
from suite.errors import UserError
from suite.tracking.delivery import Delivery, upload
from suite.tracking.journal import JOURNAL, STATE, read_events
from suite.tracking.store import Store
from suite.tracking.store_address import tracking_uri
from suite.tracking.ui.state import BoardView
from tests.suite.tracking.tracked_runs import SilentWorker, free_port, points, rows, statuses, tracker

pytestmark = pytest.mark.slow  # each fills a real store


@pytest.fixture(autouse=True)
def _no_worker(monkeypatch):
    monkeypatch.setattr(suite.tracking.client, "WorkerProcess", SilentWorker)


def _deliver(home, run="run-a"):
    delivery = Delivery(home, home / run, tracking_uri(home))
    delivery.deliver()
    return delivery


def _log_some(home, steps=range(5), **options):
    with tracker(home, **options) as tracked:
        for step in steps:
            tracked.log(step, {"train/loss": 2.0 - step / 10, "train/lr": 1e-3})
    return tracked


class _FailingStore(Store):
    """Stores the metrics but raises afterwards, at the calls whose numbers are in `failures`."""

    calls, failures = 0, ()

    def log_metrics(self, run_id, points):
        super().log_metrics(run_id, points)
        _FailingStore.calls += 1
        if _FailingStore.calls in self.failures:
            raise ConnectionError("the response was lost")


def test_a_run_arrives_completely(home):
    with tracker(home, params={f"p{n}": n for n in range(250)}, tags={"mixer": "fem", "seed": "0"}) as tracked:
        for step in range(700):
            tracked.log(step, {"train/loss": step / 7, "train/lr": 1e-3, "a": 0.1, "b": 0.2})
        tracked.summary({"test/top1": 0.8125})
        tracked.set_tags({"result": "finished"})
        tracked.artifact_text("certificate.json", '{"matched": true}')
        (home / "run-a" / "curve.txt").write_text("curve")
        tracked.artifact_file(home / "run-a" / "curve.txt", "plots")
    delivery = _deliver(home)
    assert statuses(home) == [("fem · quick · seed 0", "FINISHED")]
    assert points(home, "train/loss") == [(step, step / 7) for step in range(700)]
    assert len(points(home, "b")) == 700
    assert points(home, "test/top1") == [(699, 0.8125)]
    assert dict(rows(home, "select key, value from params")) == {f"p{n}": str(n) for n in range(250)}
    tags = dict(rows(home, "select key, value from tags"))
    assert tags.items() >= {"mixer": "fem", "seed": "0", "result": "finished"}.items()
    assert tags.items() >= {"suite.host": socket.gethostname(), "suite.pid": str(os.getpid())}.items()
    folder = home / "artifacts" / "fashion-mnist" / delivery.run_id / "artifacts"
    assert (folder / "certificate.json").read_text() == '{"matched": true}'
    assert (folder / "plots" / "curve.txt").read_text() == "curve"
    times = {event["kind"]: event["time"] for event, _ in read_events(home / "run-a" / JOURNAL)}
    assert rows(home, "select start_time, end_time from runs") == [
        (times["start"], times["finish"])
    ]  # not as delivered


def test_a_second_delivery_creates_no_duplicates(home):
    _log_some(home)
    first = _deliver(home)
    (home / "run-a" / STATE).unlink()
    assert _deliver(home).run_id == first.run_id
    assert points(home, "train/loss") == [(step, 2.0 - step / 10) for step in range(5)]
    assert len(statuses(home)) == 1


def test_a_lost_response_creates_no_duplicates(home, monkeypatch):
    _log_some(home, range(510))  # 1,020 values: two requests
    monkeypatch.setattr("suite.tracking.delivery.Store", _FailingStore)
    monkeypatch.setattr(_FailingStore, "failures", (1, 3))
    monkeypatch.setattr(_FailingStore, "calls", 0)
    delivery = Delivery(home, home / "run-a", tracking_uri(home))
    for _ in range(2):
        with pytest.raises(ConnectionError):
            delivery.deliver()
    delivery.deliver()
    assert points(home, "train/loss") == [(step, 2.0 - step / 10) for step in range(510)]
    assert statuses(home)[0][1] == "FINISHED"


def test_a_resumed_run_continues_the_same_run_without_duplicates(home):
    first = tracker(home)
    for step in range(5):
        first.log(step, {"train/loss": float(step)})
    run_id = _deliver(home).run_id
    assert statuses(home)[0][1] == "RUNNING"
    first.finish("KILLED")
    _deliver(home)
    assert statuses(home)[0][1] == "KILLED"
    second = tracker(home, resume=True)
    _deliver(home)
    assert statuses(home)[0][1] == "RUNNING"
    for step in range(3, 8):
        second.log(step, {"train/loss": float(step)})
    second.finish("FINISHED")
    assert _deliver(home).run_id == run_id
    assert points(home, "train/loss") == [(step, float(step)) for step in range(8)]
    assert [status for _, status in statuses(home)] == ["FINISHED"]


def test_a_run_resumed_by_its_id_alone_logs_no_step_twice(home):
    with tracker(home) as first:
        for step in range(6):
            first.log(step, {"train/loss": float(step)})
    run_id = _deliver(home).run_id
    shutil.rmtree(home / "run-a")  # the journal is lost; the checkpoint of step 3 was elsewhere
    with tracker(home, run="run-b", resume_run_id=run_id) as second:
        for step in range(4, 9):
            second.log(step, {"train/loss": float(step)})
    assert _deliver(home, "run-b").run_id == run_id
    assert points(home, "train/loss") == [(step, float(step)) for step in range(9)]


def test_a_run_removed_from_the_store_is_created_again_from_the_journal(home):
    with tracker(home) as first:
        first.log(1, {"train/loss": 1.0})
    _deliver(home)
    for table in ("metrics", "latest_metrics", "params", "tags", "runs"):
        rows(home, f"delete from {table}")
    with tracker(home, resume=True) as second:
        second.log(2, {"train/loss": 0.5})
    _deliver(home)
    assert points(home, "train/loss") == [(1, 1.0), (2, 0.5)]
    assert len(statuses(home)) == 1


def test_deleted_runs_and_experiments_are_restored(home):
    tracked = tracker(home)
    delivery = _deliver(home)
    client = Store(home, tracking_uri(home))._client
    client.delete_run(delivery.run_id)
    client.delete_experiment(client.get_experiment_by_name("fashion-mnist").experiment_id)
    tracked.log(1, {"train/loss": 1.0})
    tracked.finish("FINISHED")
    with tracker(home, run="run-b"):
        pass
    _deliver(home, "run-b")
    _deliver(home)
    assert client.get_experiment_by_name("fashion-mnist").lifecycle_stage == "active"
    assert points(home, "train/loss", delivery.run_id) == [(1, 1.0)]


def test_entries_that_the_store_refuses_do_not_block_the_others(home):
    with tracker(home) as tracked:
        tracked.artifact_file(home / "run-a" / "never-written.png")
        tracked.artifact_text("../outside.txt", "a name the store refuses")
        tracked.log(1, {"train/loss": 1.0})
    delivery = _deliver(home)
    assert delivery.refused == 2
    assert points(home, "train/loss") == [(1, 1.0)]
    assert statuses(home)[0][1] == "FINISHED"
    with pytest.raises(UserError, match=r"refused 2 entries.*MLFLOW_TRACKING_URI"):
        upload(home / "run-a", home)
    (home / "run-a" / "never-written.png").write_bytes(b"written at last")
    with pytest.raises(UserError, match="refused 1 entries"):
        upload(home / "run-a", home)
    assert (home / "artifacts" / "fashion-mnist" / delivery.run_id / "artifacts" / "never-written.png").is_file()


def test_a_run_is_created_with_the_tags_of_its_process(home, monkeypatch):
    def killed(store, *_):
        raise KeyboardInterrupt

    tracker(home)
    for method in ("log_params", "log_tags", "log_metrics"):
        monkeypatch.setattr(Store, method, killed)
    with pytest.raises(KeyboardInterrupt):
        _deliver(home)
    tags = dict(rows(home, "select key, value from tags"))
    assert tags.items() >= {"suite.host": socket.gethostname(), "suite.pid": str(os.getpid())}.items()


def test_upload_replays_a_journal_once(home):
    _log_some(home)
    tracked = upload(home / "run-a", home)
    assert tracked == upload(home / "run-a", home)
    assert tracked.uri == "sqlite:///mlflow.db"
    assert points(home, "train/loss", tracked.run_id) == [(step, 2.0 - step / 10) for step in range(5)]


def test_upload_does_not_overwrite_the_current_board(home):
    store = Store(home, tracking_uri(home))
    store.write_board(store.experiment("fashion-mnist"), "current", BoardView("test/top1", False, []))
    with tracker(home) as tracked:
        tracked.board("old", primary_metric="test/top1", ascending=False, columns=[])
    upload(home / "run-a", home)
    assert rows(home, "select value from experiment_tags where key = 'mlflow.note.content'") == [("current",)]


def test_upload_explains_an_error_in_one_line(home, monkeypatch):
    with pytest.raises(UserError, match=r"run-a has no tracking\.jsonl.*give the id or folder of a run"):
        upload(home / "run-a", home)
    _log_some(home)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://user:secret@127.0.0.1:{free_port()}")
    with pytest.raises(UserError, match="no server is running there") as raised:
        upload(home / "run-a", home)
    assert "secret" not in str(raised.value)
    assert "\n" not in str(raised.value)
    (home / "run-a" / "tracking.jsonl").write_text('{"kind":"tags","tags":{}}\n')
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    with pytest.raises(UserError, match="damaged"):
        upload(home / "run-a", home)

"""From the journal into a real embedded store: everything arrives, once, whatever fails on the way. Delivered in this
process.
"""

from __future__ import annotations

import os
import shutil
import socket
import time

import psutil
import pytest

import suite.tracking.client
from suite.errors import UserError
from suite.tracking.delivery import Delivery, upload
from suite.tracking.error_messages import explain
from suite.tracking.journal import STATE
from suite.tracking.store import Store, board_urls, close_dead_runs, public_uri, tracking_uri, update_board
from tests.suite.tracking.tracked_runs import SilentWorker, free_port, points, rows, statuses, tracker


@pytest.fixture(autouse=True)
def _local(monkeypatch):
    monkeypatch.setattr(suite.tracking.client, "WorkerProcess", SilentWorker)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


@pytest.fixture(scope="module")
def empty_store(tmp_path_factory):
    folder = tmp_path_factory.mktemp("store")
    Store(folder, tracking_uri(folder))
    return folder


@pytest.fixture
def home(tmp_path, empty_store):
    """A home (its name has a space and a sign that addresses escape) with an embedded store in it."""
    folder = tmp_path / "my runs #1"
    shutil.copytree(empty_store, folder)
    return folder


def _deliver(home, run="run-a"):
    delivery = Delivery(home, home / run, tracking_uri(home))
    delivery.pump()
    return delivery


def _log_some(home, steps=range(5), **options):
    with tracker(home, **options) as tracked:
        for step in steps:
            tracked.log(step, {"train/loss": 2.0 - step / 10, "train/lr": 1e-3})
    return tracked


class _FailingStore(Store):
    """Takes what it is given, and then fails to say so, at the calls whose numbers are in `failures`."""

    calls, failures = 0, ()

    def log_metrics(self, run_id, points):
        super().log_metrics(run_id, points)
        _FailingStore.calls += 1
        if _FailingStore.calls in self.failures:
            raise ConnectionError("the answer was lost")


def test_a_run_arrives_whole(home):
    with tracker(home, params={f"p{n}": n for n in range(250)}, tags={"mixer": "fem", "seed": "0"}) as tracked:
        for step in range(700):
            tracked.log(step, {"train/loss": step / 7, "train/lr": 1e-3, "a": 0.1, "b": 0.2})
        tracked.summary({"test/top1": 0.8125})
        tracked.set_tags({"version.torch": "2.14"})
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
    assert tags.items() >= {"mixer": "fem", "seed": "0", "version.torch": "2.14"}.items()
    assert tags.items() >= {"suite.host": socket.gethostname(), "suite.pid": str(os.getpid())}.items()
    folder = home / "artifacts" / "fashion-mnist" / delivery.run_id / "artifacts"
    assert (folder / "certificate.json").read_text() == '{"matched": true}'
    assert (folder / "plots" / "curve.txt").read_text() == "curve"
    begin, end = rows(home, "select start_time, end_time from runs")[0]
    assert time.time() * 1000 - 60_000 < begin <= end < time.time() * 1000  # as logged, not as delivered


def test_the_store_writes_ahead_so_that_the_ui_can_read_meanwhile(home):
    assert rows(home, "pragma journal_mode") == [("wal",)]


def test_delivering_again_doubles_nothing(home):
    _log_some(home)
    first = _deliver(home)
    (home / "run-a" / STATE).unlink()
    assert _deliver(home).run_id == first.run_id
    assert points(home, "train/loss") == [(step, 2.0 - step / 10) for step in range(5)]
    assert len(statuses(home)) == 1


def test_a_lost_answer_doubles_nothing(home, monkeypatch):
    _log_some(home, range(510))  # 1,020 values: two requests
    monkeypatch.setattr("suite.tracking.delivery.Store", _FailingStore)
    monkeypatch.setattr(_FailingStore, "failures", (1, 3))
    monkeypatch.setattr(_FailingStore, "calls", 0)
    delivery = Delivery(home, home / "run-a", tracking_uri(home))
    for _ in range(2):
        with pytest.raises(ConnectionError):
            delivery.pump()
    delivery.pump()
    assert points(home, "train/loss") == [(step, 2.0 - step / 10) for step in range(510)]
    assert statuses(home)[0][1] == "FINISHED"


def test_a_resumed_run_goes_on_in_the_same_run_without_doubles(home):
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


def test_a_run_removed_from_the_store_is_made_again_from_the_journal(home):
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


def test_runs_and_experiments_in_the_bin_are_taken_out_again(home):
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


def test_what_the_store_refuses_for_good_does_not_hold_up_the_rest(home):
    with tracker(home) as tracked:
        tracked.artifact_file(home / "run-a" / "never-written.png")
        tracked.artifact_text("../outside.txt", "a name the store refuses")
        tracked.log(1, {"train/loss": 1.0})
    delivery = _deliver(home)
    assert delivery.refused == 2
    assert points(home, "train/loss") == [(1, 1.0)]
    assert statuses(home)[0][1] == "FINISHED"
    with pytest.raises(UserError, match="all arrived but 2 entries"):
        upload(home / "run-a", home)
    (home / "run-a" / "never-written.png").write_bytes(b"written at last")
    with pytest.raises(UserError, match="all arrived but 1 entries"):
        upload(home / "run-a", home)
    assert (home / "artifacts" / "fashion-mnist" / delivery.run_id / "artifacts" / "never-written.png").is_file()


def test_a_run_tells_whose_it_is_from_its_first_moment_in_the_store(home, monkeypatch):
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


def test_upload_leaves_the_board_of_today_alone(home):
    update_board(home, "fashion-mnist", note_markdown="today", primary_metric="test/top1", ascending=False, columns=[])
    with tracker(home) as tracked:
        tracked.board("of old", primary_metric="test/top1", ascending=False, columns=[])
    upload(home / "run-a", home)
    assert rows(home, "select value from experiment_tags where key = 'mlflow.note.content'") == [("today",)]


def test_upload_says_in_one_line_what_is_wrong(home, monkeypatch):
    with pytest.raises(UserError, match="nothing to upload"):
        upload(home / "run-a", home)
    _log_some(home)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://user:secret@127.0.0.1:{free_port()}")
    with pytest.raises(UserError, match="nothing answers there") as raised:
        upload(home / "run-a", home)
    assert "secret" not in str(raised.value)
    assert "\n" not in str(raised.value)
    (home / "run-a" / "tracking.jsonl").write_text('{"kind":"tags","tags":{}}\n')
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    with pytest.raises(UserError, match="damaged"):
        upload(home / "run-a", home)


def test_a_store_that_cannot_be_used_is_explained(tmp_path):
    (tmp_path / "mlflow.db").write_text("not a database, but long enough to be looked at as one" * 10)
    with pytest.raises(Exception, match="not a database") as raised:
        Store(tmp_path, tracking_uri(tmp_path))
    assert explain(raised.value, "S") == "S is damaged: not a database"


def test_the_address_shown_hides_credentials_and_folders(monkeypatch, tmp_path):
    assert public_uri("https://ann:pw@tracking.example:5000/base/?x=1") == "https://tracking.example:5000/base"
    assert public_uri("postgresql://ann:pw@db/mlflow") == "postgresql://db/mlflow"
    assert public_uri(tracking_uri(tmp_path)) == "sqlite:///mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://tracking.example")
    assert tracking_uri(tmp_path) == "http://tracking.example"


def test_the_board_is_the_experiments_note_and_a_view_sorted_by_the_primary_metric(home):
    _log_some(home)
    delivery = _deliver(home)
    for note in ("**fem** leads\n\n| mixer |\n|---|\n| fem |", "**gla** leads"):
        number = update_board(
            home,
            "fashion-mnist",
            note_markdown=note,
            primary_metric="test/top1",
            ascending=False,
            columns=["tags.mixer", "params.seed"],
        )
    tags = dict(rows(home, "select key, value from experiment_tags where experiment_id = ?", number))
    assert tags["mlflow.note.content"] == "**gla** leads"
    assert tags["mlflow.experimentKind"] == "custom_model_development"
    assert [name for name in tags if name.startswith("mlflow.sharedViewState.")] == [
        "mlflow.sharedViewState.suiteboard"
    ]
    assert board_urls(home, "http://127.0.0.1:5000/") == {
        "fashion-mnist": f"http://127.0.0.1:5000/#/experiments/{number}/runs?workflowType=machine_learning&viewStateShareKey=suiteboard"
    }
    assert delivery.run_id


def test_only_runs_whose_process_is_gone_are_closed(home):
    store = Store(home, tracking_uri(home))
    experiment = store.experiment("fashion-mnist")
    me, host = psutil.Process(), socket.gethostname()
    started = {"suite.pid": str(me.pid), "suite.pid_start": str(me.create_time())}
    gone = max(psutil.pids()) + 100_000
    cases = {
        "alive": {"suite.host": host, **started},
        "gone": {"suite.host": host, "suite.pid": str(gone), "suite.pid_start": "1.0"},
        "its id was given to another process": {
            "suite.host": host,
            **started,
            "suite.pid_start": str(me.create_time() - 500),
        },
        "of another machine": {"suite.host": host + "x", "suite.pid": str(gone), "suite.pid_start": "1.0"},
        "not ours": {},
    }
    for name, tags in cases.items():
        store.create_run(experiment, name, 1000, tags)
    closed = close_dead_runs(home)
    assert sorted(line.split(" (")[0] for line in closed) == ["gone", "its id was given to another process"]
    assert {name for name, status in statuses(home) if status == "KILLED"} == {
        "gone",
        "its id was given to another process",
    }
    assert close_dead_runs(home) == []

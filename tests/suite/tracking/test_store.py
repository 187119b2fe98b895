"""The embedded store: its address, its board, and runs whose process has died."""

from __future__ import annotations

import socket

import psutil
import pytest

from suite.tracking.error_messages import explain
from suite.tracking.publishing import board_urls, close_dead_runs
from suite.tracking.store import Store
from suite.tracking.store_address import public_uri, tracking_uri
from suite.tracking.ui.state import BoardView
from tests.suite.tracking.tracked_runs import rows, statuses


def test_the_database_uses_a_write_ahead_log_so_that_the_ui_can_read(home):
    assert rows(home, "pragma journal_mode") == [("wal",)]


def test_a_damaged_database_is_explained(tmp_path):
    (tmp_path / "mlflow.db").write_text("not a database, but as long as one" * 10)
    with pytest.raises(Exception, match="not a database") as raised:
        Store(tmp_path, tracking_uri(tmp_path))
    assert explain(raised.value, "S") == "S is damaged: not a database"


def test_the_public_address_hides_credentials_and_folders(monkeypatch, tmp_path):
    assert public_uri("https://ann:pw@tracking.example:5000/base/?x=1") == "https://tracking.example:5000/base"
    assert public_uri("postgresql://ann:pw@db/mlflow") == "postgresql://db/mlflow"
    assert public_uri(tracking_uri(tmp_path)) == "sqlite:///mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://tracking.example")
    assert tracking_uri(tmp_path) == "http://tracking.example"


def test_a_board_is_a_note_and_a_view_sorted_by_the_primary_metric(home):
    for note in ("**fem** leads\n\n| mixer |\n|---|\n| fem |", "**gla** leads"):
        store = Store(home, tracking_uri(home))
        number = store.experiment("fashion-mnist")
        store.write_board(number, note, BoardView("test/top1", False, ["tags.mixer", "params.seed"]))
    tags = dict(rows(home, "select key, value from experiment_tags where experiment_id = ?", number))
    assert tags["mlflow.note.content"] == "**gla** leads"
    assert tags["mlflow.experimentKind"] == "custom_model_development"
    assert [name for name in tags if name.startswith("mlflow.sharedViewState.")] == [
        "mlflow.sharedViewState.suiteboard"
    ]
    assert board_urls(home, "http://127.0.0.1:5000/") == {
        "fashion-mnist": f"http://127.0.0.1:5000/#/experiments/{number}/runs?workflowType=machine_learning&viewStateShareKey=suiteboard"
    }


def test_only_runs_whose_process_has_died_are_closed(home):
    store = Store(home, tracking_uri(home))
    experiment = store.experiment("fashion-mnist")
    me, host = psutil.Process(), socket.gethostname()
    started = {"suite.pid": str(me.pid), "suite.pid_start": str(me.create_time())}
    unused = max(psutil.pids()) + 100_000
    cases = {
        "alive": {"suite.host": host, **started},
        "dead": {"suite.host": host, "suite.pid": str(unused), "suite.pid_start": "1.0"},
        "its id belongs to another process": {
            "suite.host": host,
            **started,
            "suite.pid_start": str(me.create_time() - 500),
        },
        "on another machine": {"suite.host": host + "x", "suite.pid": str(unused), "suite.pid_start": "1.0"},
        "without tags": {},
    }
    for name, tags in cases.items():
        store.create_run(experiment, name, 1000, tags)
    closed = close_dead_runs(home)
    assert sorted(line.split(" (")[0] for line in closed) == ["dead", "its id belongs to another process"]
    assert {name for name, status in statuses(home) if status == "KILLED"} == {
        "dead",
        "its id belongs to another process",
    }
    assert close_dead_runs(home) == []

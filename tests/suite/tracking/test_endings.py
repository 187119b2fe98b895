"""Each of the four endings of a run, in the MLflow store: its status, its result and its reason."""

from __future__ import annotations

import os
import signal

import pytest

from suite.records import record
from suite.tracking.delivery import upload
from suite.training.run import start
from tests.suite.tiny import tiny_config
from tests.suite.tracking.tracked_runs import rows, statuses
from tests.suite.training.run_helpers import at_step


def fail() -> None:
    raise RuntimeError("a bug")


def stop() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.parametrize(
    ("action", "sets", "status", "result", "reason"),
    [
        (lambda: None, (), "FINISHED", "finished", ""),
        (fail, (), "FAILED", "failed", "RuntimeError: a bug"),
        (lambda: None, ("lr=1e37", "warmup=0"), "FAILED", "diverged", "is not finite"),
        (stop, (), "KILLED", "interrupted", "stopped by SIGTERM"),
    ],
)
def test_every_ending_of_a_run_is_in_the_store(home, monkeypatch, action, sets, status, result, reason):
    monkeypatch.setenv("SUITE_HOME", str(home))
    monkeypatch.setenv("SUITE_TRACKING", "off")
    monkeypatch.setattr("suite.training.pictures.attention_maps", lambda *_: {})
    at_step(monkeypatch, 3, action)
    made = start(tiny_config("fashion-mnist", "softmax", *sets), data_dir=None, device="cpu").record
    assert made.status == result
    upload(home / made.id, home)
    [(name, found)] = [each for each in statuses(home) if "seed 0" in each[0]]
    assert " · board · seed 0 · patch=14" in name  # what deviates from the recipe
    assert found == status
    tags = dict(rows(home, "select key, value from tags"))
    assert tags["result"] == result
    assert reason in tags.get("error", "")
    assert ("error" in tags) == bool(reason)
    assert rows(home, "select end_time is not null from runs") == [(1,)]
    has_figures = bool(rows(home, "select 1 from latest_metrics where key = 'test/top1'"))
    assert has_figures == ("test" in made.metrics)
    assert [path.name for path in (home / "artifacts").rglob(record.NAME)] == [record.NAME]

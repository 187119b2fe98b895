"""A damaged journal costs its damaged lines: neither the resumed run nor the delivery of the other lines."""

from __future__ import annotations

import json

import pytest

import suite.tracking.client
from suite.tracking.delivery import Delivery, upload
from suite.tracking.journal import JOURNAL, STATE, read_events
from suite.tracking.store_address import tracking_uri
from tests.suite.tracking.tracked_runs import SilentWorker, points, statuses, tracker

pytestmark = pytest.mark.slow  # each trains and delivers a run

DAMAGES = {
    "not JSON": lambda line: b"\x00\xff" + line[2:],
    "cut off": lambda line: line[: len(line) // 2],
    "empty": lambda line: b"",
    "a number": lambda line: b"7",
    "nested without end": lambda line: b"[" * 100_000,
    "without its fields": lambda line: json.dumps({"kind": json.loads(line)["kind"]}).encode(),
    "another kind's fields": lambda line: line.replace(b'"step"', b'"stop"').replace(b'"tags"', b'"tag"'),
    "values of a wrong type": lambda line: line.replace(b'"values":{"train/loss":', b'"values":{"x":[],"y":'),
    "a list of values": lambda line: json.dumps({**json.loads(line), "values": [], "tags": [], "time": "now"}).encode(),
    "an unknown kind": lambda line: json.dumps({**json.loads(line), "kind": ["metrics"]}).encode(),
}


@pytest.fixture(autouse=True)
def _no_worker(monkeypatch):
    monkeypatch.setattr(suite.tracking.client, "WorkerProcess", SilentWorker)


def stopped_run(home, damage, number: int) -> None:
    """A run of six steps whose journal has one damaged line."""
    first = tracker(home)
    for step in range(6):
        first.log(step, {"train/loss": float(step)})
    lines = (home / "run-a" / JOURNAL).read_bytes().splitlines()
    lines[number] = damage(lines[number])
    (home / "run-a" / JOURNAL).write_bytes(b"\n".join(lines) + b"\n")


@pytest.mark.parametrize("number", [0, 3, 6])
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_run_with_a_damaged_line_resumes_without_a_warning(tmp_path, damage, number):
    stopped_run(tmp_path, DAMAGES[damage], number)
    warnings: list[str] = []
    with tracker(tmp_path, resume=True, warnings=warnings) as second:
        second.log(6, {"train/loss": 6.0})
    events = [event for event, _ in read_events(tmp_path / "run-a" / JOURNAL)]
    assert events[-1]["kind"] == "finish"
    assert {event["step"] for event in events if event["kind"] == "metrics"} >= {0, 1, 3, 4, 6} - {number - 1}
    assert warnings == []


@pytest.mark.parametrize("sent_before", [True, False])
@pytest.mark.parametrize("number", [0, 3])
def test_everything_but_the_damaged_line_arrives_in_one_run(home, number, sent_before):
    stopped_run(home, DAMAGES["not JSON"], number if not sent_before else 3)
    if sent_before:
        Delivery(home, home / "run-a", tracking_uri(home)).deliver()
        journal = home / "run-a" / JOURNAL
        journal.write_bytes(journal.read_bytes().replace(b'{"kind":"start"', b'{"kund":"start"'))
    with tracker(home, resume=True) as second:
        second.log(6, {"train/loss": 6.0})
    upload(home / "run-a", home)
    lost = {2} if number == 3 or sent_before else set()
    assert [step for step, _ in points(home, "train/loss")] == [step for step in range(7) if step not in lost]
    assert [status for _, status in statuses(home)] == ["FINISHED"]


def test_a_state_file_beyond_the_journals_end_loses_nothing(home):
    with tracker(home) as tracked:
        tracked.log(1, {"train/loss": 1.0})
    Delivery(home, home / "run-a", tracking_uri(home)).deliver()
    state = home / "run-a" / STATE
    state.write_text(state.read_text().replace('"offset": ', '"offset": 9'))
    with tracker(home, resume=True) as tracked:
        tracked.log(2, {"train/loss": 2.0})
    upload(home / "run-a", home)
    assert points(home, "train/loss") == [(1, 1.0), (2, 2.0)]
    assert len(statuses(home)) == 1


@pytest.mark.parametrize("method", ["log", "summary"])
def test_what_tracking_raises_becomes_one_warning(tmp_path, monkeypatch, method):
    warnings: list[str] = []
    tracked = tracker(tmp_path, warnings=warnings)
    monkeypatch.setattr(tracked._journal, "append", lambda event: {"b": 1}["a bug"])
    getattr(tracked, method)(*([1] if method == "log" else []), {"train/loss": 1.0})
    tracked.set_tags({"a": "b"})
    tracked.flush()
    tracked.finish("FINISHED")
    assert len(warnings) == 1
    assert "KeyError: 'a bug'" in warnings[0]


def test_an_unreadable_journal_does_not_stop_a_resumed_run(tmp_path):
    (tmp_path / "run-a" / JOURNAL).mkdir(parents=True)
    warnings: list[str] = []
    with tracker(tmp_path, resume=True, warnings=warnings) as tracked:
        tracked.log(1, {"train/loss": 1.0})
    assert "IsADirectoryError" in warnings[0]

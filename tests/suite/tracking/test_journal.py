"""The journal: what a run logs for MLflow is kept, whatever happens to the disk, the process or the run."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import time

import pytest

import suite.tracking.client
from suite.tracking.journal import JOURNAL, Delivered, JournalWriter, load_state, read_events, save_state
from tests.suite.tracking.tracked_runs import SilentWorker, tracker


@pytest.fixture(autouse=True)
def _no_worker(monkeypatch):
    monkeypatch.setattr(suite.tracking.client, "WorkerProcess", SilentWorker)


def _events(home, run="run-a", kind=None):
    return [event for event, _ in read_events(home / run / JOURNAL) if kind in (None, event["kind"])]


def test_tracking_is_imported_without_mlflow():
    code = (
        "import sys, suite.tracking.store, suite.tracking.client, suite.tracking.ui.server; "
        "sys.exit('mlflow' in sys.modules or 'torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0


def test_events_are_read_in_order_with_the_offset_of_their_end(tmp_path):
    writer = JournalWriter(tmp_path)
    written = [{"kind": "tags", "tags": {}, "n": n, "text": "zwölf\n" * n} for n in range(50)]
    for event in written:
        writer.append(event)
    writer.close()
    read = list(read_events(tmp_path / JOURNAL))
    assert [event for event, _ in read] == written
    assert [event for event, _ in read_events(tmp_path / JOURNAL, read[19][1])] == written[20:]
    assert read[-1][1] == (tmp_path / JOURNAL).stat().st_size


def test_an_incomplete_line_is_skipped_and_later_lines_are_read(tmp_path):
    (tmp_path / JOURNAL).write_bytes(b'{"kind":"tags","tags":{},"n":1}\n{"kind":"tags","tags":{},"n":2,"te')
    assert [event["n"] for event, _ in read_events(tmp_path / JOURNAL)] == [1]
    writer = JournalWriter(tmp_path)
    writer.append({"kind": "tags", "tags": {}, "n": 3})
    writer.close()
    assert [event["n"] for event, _ in read_events(tmp_path / JOURNAL)] == [1, 3]


def test_events_that_did_not_fit_on_the_disk_are_written_later_in_order(tmp_path, monkeypatch):
    writer, real_write, free = JournalWriter(tmp_path), os.write, 30

    def nearly_full(fd, data):
        nonlocal free
        if not free:
            raise OSError(errno.ENOSPC, "No space left on device")
        written = real_write(fd, data[:free])
        free -= written
        return written

    monkeypatch.setattr(os, "write", nearly_full)
    for n in range(5):
        writer.append({"kind": "tags", "tags": {}, "n": n})
    assert writer.error is not None
    assert writer.error.errno == errno.ENOSPC
    free = 10_000
    writer.append({"kind": "tags", "tags": {}, "n": 5})
    assert writer.error is None
    writer.close()
    assert [event["n"] for event, _ in read_events(tmp_path / JOURNAL)] == [0, 1, 2, 3, 4, 5]


def test_a_full_disk_gives_one_warning_and_the_run_continues(tmp_path, monkeypatch):
    monkeypatch.setattr(suite.tracking.client, "_rename_old_journal", lambda journal: None)
    (tmp_path / "run-a").mkdir()
    (tmp_path / "run-a" / JOURNAL).symlink_to("/dev/full")  # every write to it fails with "no space left"
    warnings: list[str] = []
    tracked = tracker(tmp_path, warnings=warnings)
    for step in range(100):
        tracked.log(step, {"train/loss": 1.0})
    tracked.flush()
    tracked.finish("FINISHED")
    assert len(warnings) == 2
    assert "disk full: No space left" in warnings[0]
    assert "kept in memory" in warnings[0]
    assert "102 entries could not be written" in warnings[1]
    assert "suite upload" not in "".join(warnings)  # there would be nothing to upload


def test_a_missing_run_folder_is_reported_with_what_is_lost_and_the_run_continues(tmp_path):
    (tmp_path / "run-a").write_text("a file in place of the run's folder")
    warnings: list[str] = []
    with tracker(tmp_path, warnings=warnings) as tracked:
        tracked.log(1, {"train/loss": 1.0})
    assert len(warnings) == 2
    assert "3 entries could not be written" in warnings[1]


def test_logging_a_value_takes_well_under_a_millisecond(tmp_path):
    tracked = tracker(tmp_path)
    metrics = {"train/loss": 1.25, "train/lr": 1e-3, "train/grad_norm": 0.7}
    begin = time.perf_counter()
    for step in range(2000):
        tracked.log(step, metrics)
    assert (time.perf_counter() - begin) / 2000 < 6e-4  # a hundredth of a 60 ms step; about 15 µs on an idle machine
    tracked.finish("FINISHED")


def test_values_that_are_not_finite_become_tags_not_metrics(tmp_path):
    with tracker(tmp_path) as tracked:
        tracked.log(7, {"train/loss": float("nan"), "train/norm": float("inf"), "train/lr": 0.5})
        tracked.summary({"test/mse": float("-inf")})
    assert [event["values"] for event in _events(tmp_path, kind="metrics")] == [{"train/lr": 0.5}]
    assert _events(tmp_path, kind="summary") == []
    tags = [event["tags"] for event in _events(tmp_path, kind="tags")]
    assert tags == [
        {"suite.not_finite.train/loss": "nan at step 7", "suite.not_finite.train/norm": "inf at step 7"},
        {"suite.not_finite.test/mse": "-inf at step 7"},
    ]


def test_names_and_values_are_shortened_to_mlflows_limits(tmp_path):
    with tracker(tmp_path, params={"mixer@|x": "v" * 7000}, tags={"note": "t" * 9000}) as tracked:
        tracked.log(0, {"loss@|β": 1.0})
    start = _events(tmp_path, kind="start")[0]
    assert list(start["params"]) == ["mixer__x"]
    assert len(start["params"]["mixer__x"]) == 6000
    assert len(start["tags"]["note"]) == 8000
    assert _events(tmp_path, kind="metrics")[0]["values"] == {"loss___": 1.0}


def test_a_summary_is_logged_at_the_last_step(tmp_path):
    with tracker(tmp_path) as tracked:
        tracked.log(600, {"valid/top1": 0.7})
        tracked.summary({"valid/top1": 0.8})
    assert _events(tmp_path, kind="summary")[0]["step"] == 600


def test_a_resumed_run_logs_no_step_of_a_metric_twice(tmp_path):
    first = tracker(tmp_path)
    for step in range(10):
        first.log(step, {"train/loss": float(step)})
    first.log(5, {"valid/loss": 0.5})  # killed before finish; the checkpoint was made at step 5
    with tracker(tmp_path, resume=True) as second:
        for step in range(6, 12):
            second.log(step, {"train/loss": float(step)})
        second.log(10, {"valid/loss": 0.25})
    logged = [(name, event["step"]) for event in _events(tmp_path, kind="metrics") for name in event["values"]]
    assert sorted(logged) == [("train/loss", step) for step in range(12)] + [("valid/loss", 5), ("valid/loss", 10)]
    assert [event["kind"] for event in _events(tmp_path) if event["kind"] in ("start", "resume", "finish")] == [
        "start",
        "resume",
        "finish",
    ]


def test_a_repeated_summary_is_logged_once_but_again_after_an_interruption(tmp_path):
    first = tracker(tmp_path)
    first.summary({"time/s": 1.0})  # killed between summary and finish
    with tracker(tmp_path, resume=True) as second:
        second.summary({"time/s": 1.0})
        second.finish("KILLED")
    with tracker(tmp_path, resume=True) as third:
        third.summary({"time/s": 2.0})
    assert [event["values"]["time/s"] for event in _events(tmp_path, kind="summary")] == [1.0, 2.0]


def test_a_new_run_in_a_used_folder_renames_the_old_journal(tmp_path):
    with tracker(tmp_path) as first:
        first.log(3, {"train/loss": 1.0})
    save_state(tmp_path / "run-a", "sqlite:///x", Delivered("abc", "1", 99))
    with tracker(tmp_path) as second:
        second.log(1, {"train/loss": 2.0})
    assert [event["step"] for event in _events(tmp_path, kind="metrics")] == [1]
    assert (tmp_path / "run-a" / "tracking.1.jsonl").is_file()
    assert load_state(tmp_path / "run-a", "sqlite:///x") == Delivered()


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (None, "FINISHED"),
        (ValueError("no"), "FAILED"),
        (KeyboardInterrupt(), "KILLED"),
        (SystemExit(143), "KILLED"),
        (SystemExit(1), "FAILED"),
        (SystemExit(0), "FINISHED"),
    ],
)
def test_leaving_the_context_logs_how_the_run_ended(tmp_path, error, status):
    def body():
        with tracker(tmp_path):
            if error is not None:
                raise error

    if error is None:
        body()
    else:
        with pytest.raises(type(error)):
            body()
    assert [event["status"] for event in _events(tmp_path, kind="finish")] == [status]


def test_the_first_logged_end_of_a_run_is_final(tmp_path):
    with tracker(tmp_path) as tracked:
        tracked.finish("KILLED")
    assert [event["status"] for event in _events(tmp_path, kind="finish")] == ["KILLED"]


def test_a_damaged_state_file_counts_as_empty(tmp_path):
    save_state(tmp_path, "a", Delivered("r", "1", 10, [3], {"x": 3}))
    save_state(tmp_path, "b", Delivered("s", "2", 20))
    assert load_state(tmp_path, "a") == Delivered("r", "1", 10, [3], {"x": 3})
    state = tmp_path / "tracking.state.json"
    for damage in ("{", "[]", json.dumps({"a": {"unknown": 1}})):
        state.write_text(damage)
        assert load_state(tmp_path, "a") == Delivered()


def test_files_inside_the_run_folder_are_logged_with_relative_paths(tmp_path):
    with tracker(tmp_path) as tracked:
        inside, outside = tmp_path / "run-a" / "curve.png", tmp_path / "other.txt"
        inside.write_bytes(b"png")
        outside.write_text("x")
        tracked.artifact_file(inside)
        tracked.artifact_file(outside, "extra")
    assert [(event["path"], event["folder"]) for event in _events(tmp_path, kind="file")] == [
        ("curve.png", ""),
        (str(outside), "extra"),
    ]

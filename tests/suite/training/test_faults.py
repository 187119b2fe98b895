"""Whatever happens around a run, it gets its record: dead loader processes, closed output, signals, full disks, clocks
that are set.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
import pytest

from suite.console import Output
from suite.records import record, rescued, runs_folder
from suite.training.run import resume, start
from suite.training.signals import IMPATIENT, PATIENT, StopSignal
from tasks.images.loading import STOPPING
from tests.suite.tiny import tiny_arguments, tiny_config
from tests.suite.training.run_helpers import at_step, largest_file, recorded
from tests.suite.training.test_resume import interrupted_at


@pytest.fixture(autouse=True)
def _bare(monkeypatch):
    """Neither tracking nor pictures: they take longer than these runs."""
    monkeypatch.setenv("SUITE_TRACKING", "off")
    monkeypatch.setattr("suite.training.pictures.attention_maps", lambda *_: {})


# --- C1: failures while failing ---


def with_loader_processes(monkeypatch) -> None:
    """Fashion-MNIST's batches from a loader process, as image folders have them."""
    import tasks
    from tasks.base import Batch

    cls = tasks.get("fashion-mnist")
    real = cls.train_batches

    class Rows:
        def __init__(self, batches: list[Batch]) -> None:
            self.batches = batches

        def __len__(self) -> int:
            return len(self.batches)

        def __getitem__(self, index: int) -> Batch:
            time.sleep(0.05)
            return self.batches[index]

    def train_batches(self, *arguments):
        from torch.utils.data import DataLoader

        batches = real(self, *arguments)
        rows = Rows([next(batches) for _ in range(6)])
        yield from DataLoader(rows, batch_size=None, num_workers=1, prefetch_factor=1)  # type: ignore[arg-type]

    monkeypatch.setattr(cls, "train_batches", train_batches)


@pytest.mark.filterwarnings("ignore")  # forking in a process with threads
def test_a_killed_loader_process_costs_no_record(monkeypatch):
    with_loader_processes(monkeypatch)

    def kill_it():
        [worker] = psutil.Process().children()
        worker.kill()
        time.sleep(0.2)

    at_step(monkeypatch, 2, kill_it)
    outcome = start(tiny_config("fashion-mnist"), data_dir=None, device="cpu")
    made = recorded(outcome)
    assert (outcome.exit_code, made.status) == (1, "failed")
    assert made.error is not None
    assert "a process that loads data has died" in made.error
    assert [step for step, _ in made.loss_trace][:2] == [1, 2]


@pytest.mark.parametrize("what", ["suite.training.execution.keep_traceback", "suite.training.execution._ending"])
def test_what_is_raised_while_a_failure_is_handled_costs_no_record(monkeypatch, what):
    def fail(*arguments):
        raise RuntimeError("again")

    monkeypatch.setattr(what, fail)
    at_step(monkeypatch, 3, lambda: 1 / 0)
    outcome = start(tiny_config("fashion-mnist"), data_dir=None, device="cpu")
    assert (outcome.exit_code, recorded(outcome).status) == (1, "failed")
    assert [step for step, _ in recorded(outcome).loss_trace] == [1, 2, 3]


@pytest.mark.parametrize("error", [SystemExit(0), MemoryError(), KeyboardInterrupt()])
def test_every_kind_of_exception_in_the_loop_has_a_record(monkeypatch, error):
    def fail():
        raise error

    at_step(monkeypatch, 3, fail)
    outcome = start(tiny_config("fashion-mnist"), data_dir=None, device="cpu")
    assert (outcome.exit_code, recorded(outcome).status) == (1, "failed")


# --- C2: output ---


class Gone:
    """A pipe whose reader has ended, or a terminal that is gone."""

    encoding = "utf-8"

    def __init__(self, error: Exception) -> None:
        self.error = error

    def write(self, text: str) -> int:
        raise self.error

    def flush(self) -> None:
        raise self.error

    def isatty(self) -> bool:
        return False


GONE = [
    Gone(BrokenPipeError(32, "Broken pipe")),
    Gone(OSError(5, "Input/output error")),
    Gone(ValueError("closed")),
    None,
]


@pytest.mark.parametrize("gone", GONE)
def test_closed_output_neither_stops_a_run_nor_changes_its_exit_code(monkeypatch, runs, gone):
    from suite.cli import app

    def close():
        monkeypatch.setattr(sys, "stderr", gone)
        monkeypatch.setattr(sys, "stdout", gone)

    at_step(monkeypatch, 1, close)
    monkeypatch.setattr(sys, "argv", ["suite", *tiny_arguments("fashion-mnist")])
    with pytest.raises(SystemExit) as end:
        app.main()
    monkeypatch.undo()
    assert end.value.code == 0
    [path] = runs.glob("*/record.json")
    assert record.read(path).status == "finished"


def test_output_that_its_encoding_lacks_is_replaced(monkeypatch, tmp_path):
    with open(tmp_path / "ascii", "w", encoding="ascii") as ascii_only:
        monkeypatch.setattr(sys, "stdout", ascii_only)
        Output("stdout").write("fem · β\n")
        monkeypatch.undo()
    assert (tmp_path / "ascii").read_text() == "fem ? ?\n"


@pytest.mark.slow
def test_a_real_pipe_that_closes_costs_no_record(runs):
    arguments = " ".join(tiny_arguments("fashion-mnist", "softmax", "steps=60", "evals=30"))
    command = f"set -o pipefail; {sys.executable} -m suite {arguments} 2>&1 | head -1"
    environment = {**os.environ, "SUITE_HOME": str(runs), "SUITE_TRACKING": "off", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(["bash", "-c", command], env=environment, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    [path] = runs.glob("*/record.json")
    assert record.read(path).status == "finished"


# --- C4: signals ---


@pytest.mark.parametrize("number", PATIENT)
def test_every_signal_that_ends_processes_stops_a_run_resumably(monkeypatch, number):
    stopped = interrupted_at(monkeypatch, 3, number, mixer="softmax")
    assert stopped.exit_code == 128 + number
    assert (stopped.record.status, stopped.record.error) == ("interrupted", f"stopped by {number.name}")
    assert resume(stopped.record.id, data_dir=None, device="cpu").record.resumed_at == [3]


def test_loaders_leave_all_signals_that_stop_a_run_to_it():
    assert {*STOPPING} == {*IMPATIENT, *PATIENT}


def test_a_schedulers_repeated_signal_does_not_prevent_the_checkpoint(monkeypatch):
    def twice():
        for _ in range(3):
            os.kill(os.getpid(), signal.SIGXCPU)

    with monkeypatch.context() as patch:
        at_step(patch, 3, twice)
        stopped = start(tiny_config("fashion-mnist"), data_dir=None, device="cpu").record
    assert resume(stopped.id, data_dir=None, device="cpu").record.resumed_at == [3]


def test_a_signal_that_nohup_ignores_stays_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with StopSignal() as stop:
            os.kill(os.getpid(), signal.SIGHUP)
            assert stop.received is None
    finally:
        signal.signal(signal.SIGHUP, before)


# --- C6: full disks ---


@contextlib.contextmanager
def small_disk(folder: Path, size: int):
    """A file system of a few bytes, where this user may mount one."""
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)], capture_output=True)
    if mounted.returncode:
        pytest.skip("no file system can be mounted here")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_full_disk_is_named_and_the_warning_says_what_is_lost(monkeypatch, suite, runs):
    with largest_file(60_000):
        ended = suite(*tiny_arguments("fashion-mnist"))
    assert ended.code == 0
    assert "(disk full: File too large)" in ended.err
    assert "what it trains after step 0 is lost" in ended.err


def test_a_record_rescued_from_a_full_disk_is_moved_back_by_the_doctor(monkeypatch, suite, tmp_path):
    elsewhere = tmp_path / "tmp"
    elsewhere.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(elsewhere))
    real = record.write

    def write(folder, made):
        if folder.is_relative_to(runs_folder.home()):
            raise OSError(28, "No space left on device")
        return real(folder, made)

    with monkeypatch.context() as patch:
        patch.setattr(record, "write", write)
        ended = suite(*tiny_arguments("fashion-mnist", "softmax", "steps=1"))
    assert "disk full: No space left on device" in ended.err
    [path] = elsewhere.glob("mixer-suite-*/record.json")
    made = record.read(path)
    moved, left = rescued.move_back()
    assert (moved, left) == ([made.id], [])
    assert record.read(runs_folder.home() / made.id / record.NAME) == made
    assert not list(elsewhere.iterdir())
    assert rescued.move_back() == ([], [])


def test_a_rescued_record_that_cannot_be_moved_is_named(monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    (tmp_path / "mixer-suite-x").mkdir()
    (tmp_path / "mixer-suite-x" / record.NAME).write_text("{}")
    moved, [left] = rescued.move_back()
    assert moved == []
    assert str(tmp_path / "mixer-suite-x") in left


def test_a_run_on_a_really_full_disk_has_a_record_and_its_checkpoints_stay_whole(monkeypatch, suite, tmp_path):
    disk = tmp_path / "disk"
    with small_disk(disk, 2_000_000):
        monkeypatch.setenv("SUITE_HOME", str(disk))
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
        at_step(monkeypatch, 3, lambda: fill(disk / "filler"))
        ended = suite(*tiny_arguments("fashion-mnist"))
        assert ended.code == 0
        assert "disk full: No space left on device" in ended.err
        [path] = tmp_path.glob("mixer-suite-*/record.json")
        assert record.read(path).status == "finished"
        (disk / "filler").unlink()
        assert len(rescued.move_back()[0]) == 1
        assert len(list(disk.glob("*/record.json"))) == 1


def fill(path: Path) -> None:
    with contextlib.suppress(OSError), open(path, "wb") as file:
        while True:
            file.write(bytes(1000))
            file.flush()


# --- C7: clocks ---


def test_a_clock_set_back_gives_no_negative_time(monkeypatch):
    shift = [0.0]
    real, real_ns = time.time, time.time_ns
    monkeypatch.setattr(time, "time", lambda: real() - shift[0])
    monkeypatch.setattr(time, "time_ns", lambda: real_ns() - int(shift[0] * 1e9))
    at_step(monkeypatch, 2, lambda: shift.__setitem__(0, 86_400.0))
    made = start(tiny_config("fashion-mnist"), data_dir=None, device="cpu").record
    assert made.timing is not None
    assert 0 < made.timing.wall_s < 600
    assert 0 < made.timing.start_s < 6000


def test_a_clock_set_back_before_the_first_step_gives_no_negative_start(monkeypatch):
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() - 86_400)
    made = start(tiny_config("fashion-mnist"), data_dir=None, device="cpu").record
    assert made.timing is not None
    assert made.timing.start_s > 0


@pytest.mark.slow
def test_the_start_is_measured_from_the_command_and_not_from_the_process(monkeypatch, suite):
    """A process may have carried out other runs, or tests, for hours."""
    began = time.monotonic()
    made = start(tiny_config("fashion-mnist"), data_dir=None, device="cpu").record
    assert made.timing is not None
    assert 0 < made.timing.start_s < time.monotonic() - began
    earlier = start(tiny_config("fashion-mnist"), data_dir=None, device="cpu", commanded=began - 1000).record
    assert earlier.timing is not None
    assert 1000 < earlier.timing.start_s < 1000 + time.monotonic() - began
    began = time.monotonic()
    shown = json.loads(suite(*tiny_arguments("fashion-mnist"), "--json").out)
    assert 0 < shown["timing"]["start_s"] < time.monotonic() - began


@pytest.mark.parametrize("name", ["wall_s", "start_s", "step_s", "data_share", "examples_per_s"])
def test_a_record_with_a_negative_time_is_refused(name):
    from pydantic import ValidationError

    from suite.records.schema import Timing
    from tests.suite.tiny import made_record

    timing = made_record().timing
    assert timing is not None
    with pytest.raises(ValidationError):
        Timing.model_validate({**timing.model_dump(), name: -1.0})

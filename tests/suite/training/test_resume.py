"""Stopping and resuming: signals, kill -9, damaged checkpoints. A resumed run equals the whole one bit for bit."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

import tasks
from suite.errors import UserError
from suite.records import record, runs_folder
from suite.records.schema import Record
from suite.training import checkpoint
from suite.training.job import assemble
from suite.training.outcome import Outcome
from suite.training.run import resume, start
from tests.suite.tiny import TASKS, tiny_arguments, tiny_config
from tests.suite.training.run_helpers import at_step, recorded

#: Everything that draws random numbers while training, and averaged weights.
RANDOM = ("dropout=0.2", "drop_path=0.3", "ema=0.9")


@pytest.fixture(autouse=True)
def _bare(monkeypatch):
    """Neither tracking nor pictures: they take longer than these runs."""
    monkeypatch.setenv("SUITE_TRACKING", "off")
    monkeypatch.setattr("suite.training.execution.show_pictures", lambda *_: None)


def equal_runs(one: Record, two: Record) -> bool:
    return record.same_figures(one, two) and one.loss_trace == two.loss_trace and one.selection == two.selection


def interrupted_at(
    monkeypatch, step: int, number: int, *sets: str, task: str = "fashion-mnist", mixer: str = "fem", seed: int = 0
) -> Outcome:
    with monkeypatch.context() as patch:
        at_step(patch, step, lambda: os.kill(os.getpid(), number))
        return start(tiny_config(task, mixer, *sets, seed=seed), data_dir=None, device="cpu")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_stops_between_two_steps_and_the_run_can_be_resumed(monkeypatch, suite, runs, number, code):
    with monkeypatch.context() as patch:
        at_step(patch, 3, lambda: os.kill(os.getpid(), number))
        ended = suite(*tiny_arguments("fashion-mnist"))
    [folder] = runs.iterdir()
    made = record.read(folder / record.NAME)
    assert ended.code == code
    assert (made.status, made.error) == ("interrupted", f"stopped by {signal.Signals(number).name}")
    assert f"suite run --resume {folder.name}" in ended.err
    assert [step for step, _ in made.loss_trace] == [1, 2, 3]
    outcome = resume(folder.name, data_dir=None, device="cpu")
    assert (outcome.exit_code, outcome.record.status, outcome.record.resumed_at) == (0, "finished", [3])
    assert outcome.record.created == made.created


@pytest.mark.parametrize(("task", "sets"), [("fashion-mnist", ()), *((task, RANDOM) for task in TASKS)])
@pytest.mark.slow
def test_an_interrupted_and_resumed_run_equals_the_uninterrupted_one(monkeypatch, task, sets):
    whole = start(tiny_config(task, "fem", *sets), data_dir=None, device="cpu").record
    stopped = interrupted_at(monkeypatch, 3, signal.SIGTERM, *sets, task=task).record
    torch.manual_seed(123)  # the resuming process has drawn other numbers before
    assert equal_runs(resume(stopped.id, data_dir=None, device="cpu").record, whole)


def test_a_running_run_cannot_be_resumed(monkeypatch, suite, runs):
    refused: list[Path] = []

    def resume_it():
        [folder] = runs.iterdir()
        with pytest.raises(UserError, match=folder.name):
            resume(folder.name, data_dir=None, device="cpu")
        refused.append(folder)

    at_step(monkeypatch, 3, resume_it)
    outcome = start(tiny_config("fashion-mnist"), data_dir=None, device="cpu")
    assert outcome.exit_code == 0
    [folder] = refused
    assert not (folder / runs_folder.LOCK).exists()


def test_a_run_may_be_interrupted_twice(monkeypatch):
    whole = start(tiny_config("fashion-mnist", "fem", *RANDOM), data_dir=None, device="cpu").record
    stopped = interrupted_at(monkeypatch, 1, signal.SIGTERM, *RANDOM).record
    with monkeypatch.context() as patch:
        at_step(patch, 5, lambda: os.kill(os.getpid(), signal.SIGTERM))
        resume(stopped.id, data_dir=None, device="cpu")
    last = resume(stopped.id, data_dir=None, device="cpu").record
    assert last.resumed_at == [1, 5]
    assert equal_runs(last, whole)


def test_a_run_stopped_after_its_last_step_only_tests(monkeypatch):
    whole = start(tiny_config("fashion-mnist", "fem"), data_dir=None, device="cpu").record

    def fail(*arguments, **more):
        raise RuntimeError("the power failed")

    with monkeypatch.context() as patch:
        patch.setattr("suite.training.execution.evaluate", fail)
        stopped = start(tiny_config("fashion-mnist", "fem"), data_dir=None, device="cpu").record
    assert stopped.status == "failed"
    assert equal_runs(resume(stopped.id, data_dir=None, device="cpu").record, whole)


def test_a_second_signal_ends_the_run_at_once(monkeypatch):
    def twice():
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    with monkeypatch.context() as patch:
        at_step(patch, 3, twice)
        outcome = start(tiny_config("fashion-mnist"), data_dir=None, device="cpu")
    assert (outcome.exit_code, outcome.record.status) == (130, "interrupted")


def test_a_second_signal_while_tracking_closes_costs_no_record(monkeypatch, capsys):
    def close(*arguments):
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr("suite.training.execution.close_tracker", close)
    outcome = start(tiny_config("fashion-mnist"), data_dir=None, device="cpu")
    assert (outcome.exit_code, recorded(outcome).status) == (0, "finished")
    assert f"suite upload {outcome.record.id}" in capsys.readouterr().err


def test_a_tracking_error_costs_neither_record_nor_exit_code(monkeypatch, capsys):
    monkeypatch.setattr("suite.training.execution.close_tracker", lambda *_: 1 / 0)
    outcome = start(tiny_config("fashion-mnist"), data_dir=None, device="cpu")
    assert (outcome.exit_code, recorded(outcome).status) == (0, "finished")
    assert f"suite upload {outcome.record.id}" in capsys.readouterr().err


def test_signals_while_the_record_is_written_do_not_prevent_it(monkeypatch):
    def interrupted_assemble(*arguments):
        for _ in range(3):
            os.kill(os.getpid(), signal.SIGTERM)
        return assemble(*arguments)

    monkeypatch.setattr("suite.training.execution.assemble", interrupted_assemble)
    outcome = start(tiny_config("fashion-mnist"), data_dir=None, device="cpu")
    assert (outcome.exit_code, recorded(outcome).status) == (0, "finished")


def test_a_run_whose_mixer_has_changed_since_cannot_be_resumed(monkeypatch, suite, tmp_path):
    mine = tmp_path / "mine.py"
    mine.write_text("from backbones.mixers.deconstructed.variants import NoMixing\nclass Mine(NoMixing):\n    pass\n")
    stopped = interrupted_at(monkeypatch, 1, signal.SIGTERM, mixer=f"{mine}:Mine").record
    mine.write_text(mine.read_text() + "# changed\n")
    ended = suite("run", "--resume", stopped.id)
    assert (ended.code, ended.err.count("\n")) == (2, 1)
    assert "has changed: mine.py@" in ended.err


def test_a_run_whose_data_have_changed_since_cannot_be_resumed(monkeypatch, suite):
    stopped = interrupted_at(monkeypatch, 1, signal.SIGTERM, mixer="softmax").record
    monkeypatch.setattr(tasks.get("fashion-mnist"), "fingerprint", "f" * 64)
    ended = suite("run", "--resume", stopped.id)
    assert (ended.code, ended.err.count("\n")) == (2, 1)
    assert "its data was" in ended.err


def test_a_run_started_under_another_protocol_cannot_be_resumed(monkeypatch, suite):
    stopped = interrupted_at(monkeypatch, 1, signal.SIGTERM, mixer="softmax").record
    monkeypatch.setattr(tasks.get("fashion-mnist"), "protocol", "fashion-mnist/99")
    ended = suite("run", "--resume", stopped.id)
    assert (ended.code, ended.err.count("\n")) == (2, 1)
    assert "its protocol was fashion-mnist/1, now it is fashion-mnist/99" in ended.err


def test_a_checkpoint_without_a_protocol_can_be_resumed(monkeypatch, suite, runs):
    stopped = interrupted_at(monkeypatch, 1, signal.SIGTERM, mixer="softmax").record
    path = runs / stopped.id / checkpoint.NAME
    state = torch.load(path, weights_only=True)
    del state["origin"]["protocol"]
    checkpoint.write(path, state)
    assert suite("run", "--resume", stopped.id).code == 0


def test_checkpoints_are_also_written_by_the_clock_between_validations(monkeypatch):
    saved: list[int] = []
    real = checkpoint.save

    def save(folder, content):
        saved.append(content["step"])
        real(folder, content)

    monkeypatch.setattr(checkpoint, "save", save)
    start(tiny_config("fashion-mnist", "softmax", "evals=1"), data_dir=None, device="cpu")
    assert saved == [6]
    saved.clear()
    monkeypatch.setattr("suite.training.trainer.CHECKPOINT_S", -1.0)
    start(tiny_config("fashion-mnist", "softmax", "evals=1"), data_dir=None, device="cpu")
    assert saved == [1, 2, 3, 4, 5, 6]


def test_what_a_killed_process_left_half_written_is_deleted(tmp_path):
    leftover = tmp_path / f".{checkpoint.NAME}.4711"
    leftover.write_text("half")
    checkpoint.save(tmp_path, {"step": 1})
    assert [path.name for path in tmp_path.iterdir()] == [checkpoint.NAME]


def test_signal_handlers_are_restored_after_a_run():
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    start(tiny_config("fashion-mnist", "softmax", "steps=1"), data_dir=None, device="cpu")
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


DAMAGES = {
    "truncated": lambda path: path.write_bytes(path.read_bytes()[:1000]),
    "without its sha256": lambda path: torch.save(torch.load(path), path),
    "empty": lambda path: path.write_bytes(b""),
    "not a checkpoint": lambda path: path.write_text("hello"),
    "a list": lambda path: torch.save([1, 2], path),
    "of another format": lambda path: checkpoint.write(path, {"format": 0}),
    "of another config": lambda path: checkpoint.write(path, {**torch.load(path), "identity": "0"}),
    "of another version's model": lambda path: checkpoint.write(
        path, {**torch.load(path), "model": {"weight": torch.zeros(1)}}
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_one_line(monkeypatch, suite, damage):
    stopped = interrupted_at(monkeypatch, 1, signal.SIGTERM, mixer="softmax")
    DAMAGES[damage](runs_folder.home() / stopped.record.id / checkpoint.NAME)
    ended = suite("run", "--resume", stopped.record.id)
    assert (ended.code, ended.out, ended.err.count("\n")) == (2, "", 1)
    assert "start" in ended.err
    assert "again" in ended.err


def test_a_checkpoint_that_executes_something_is_not_read(monkeypatch, suite, tmp_path):
    stopped = interrupted_at(monkeypatch, 1, signal.SIGTERM, mixer="softmax")
    path = runs_folder.home() / stopped.record.id / checkpoint.NAME
    checkpoint.write(path, {**torch.load(path), "surplus": Trap(tmp_path / "sprung")})
    ended = suite("run", "--resume", stopped.record.id)
    assert (ended.code, ended.err.count("\n")) == (2, 1)
    assert not (tmp_path / "sprung").exists()


class Trap:
    """An object whose unpickling makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


def test_an_unreadable_record_of_a_stopped_run_counts_as_none(monkeypatch, suite):
    whole = start(tiny_config("fashion-mnist", "softmax"), data_dir=None, device="cpu").record
    stopped = interrupted_at(monkeypatch, 1, signal.SIGTERM, mixer="softmax")
    folder = runs_folder.home() / stopped.record.id
    (folder / record.NAME).write_text("{}")
    ended = suite("run", "--resume", stopped.record.id)
    assert ended.code == 0, ended.err
    assert "record.unreadable.json" in ended.err
    assert equal_runs(record.read(folder / record.NAME), whole)
    assert (folder / "record.unreadable.json").read_text() == "{}"


def test_a_failed_write_leaves_the_old_checkpoint(tmp_path, monkeypatch):
    checkpoint.save(tmp_path, {"step": 1})
    monkeypatch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(OSError, match="No space"):
        checkpoint.save(tmp_path, {"step": 2})
    assert checkpoint.load(tmp_path, torch.device("cpu"), pytest.fail)["step"] == 1
    assert [path.name for path in tmp_path.iterdir()] == [checkpoint.NAME]


# --- real processes ---

LONG = ("steps=120", "evals=40")


def process(runs: Path, *arguments: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "SUITE_HOME": str(runs), "SUITE_TRACKING": "off", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "suite", *arguments]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for_checkpoint(runs: Path, running: subprocess.Popen[str]) -> Path:
    deadline = time.monotonic() + 200
    while time.monotonic() < deadline:
        if found := list(runs.glob(f"*/{checkpoint.NAME}")):
            return found[0].parent
        assert running.poll() is None, running.communicate()
        time.sleep(0.002)
    raise AssertionError("no checkpoint came")


@pytest.mark.slow
@pytest.mark.parametrize(("task", "sets"), [("sotu", ()), ("fashion-mnist", ()), ("household-power", RANDOM)])
def test_a_run_killed_in_the_middle_and_resumed_equals_the_uninterrupted_one(runs, task, sets):
    whole = start(tiny_config(task, "fem", *LONG, *sets), data_dir=None, device="cpu").record
    killed_runs = runs / "killed"
    running = process(killed_runs, *tiny_arguments(task, "fem", *LONG, *sets))
    folder = wait_for_checkpoint(killed_runs, running)
    running.kill()
    assert running.wait() == -signal.SIGKILL
    running.communicate()
    assert not (folder / record.NAME).exists()
    at = torch.load(folder / checkpoint.NAME)["step"]
    assert 0 < at < 120
    resumed = process(killed_runs, "run", "--resume", folder.name, "--device", "cpu")
    _, err = resumed.communicate(timeout=300)
    assert resumed.returncode == 0, err
    made = record.read(folder / record.NAME)
    assert made.resumed_at == [at]
    assert made.identity == whole.identity
    assert equal_runs(made, whole)


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_real_process_ends_with_the_signals_exit_code(runs, number, code):
    running = process(runs, *tiny_arguments("fashion-mnist", "fem", "steps=5000", "evals=500"))
    folder = wait_for_checkpoint(runs, running)
    running.send_signal(number)
    _, err = running.communicate(timeout=60)
    assert running.returncode == code
    assert "Traceback" not in err
    assert record.read(folder / record.NAME).status == "interrupted"

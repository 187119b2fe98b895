"""A damaged checkpoint never loads: the run falls back to an older one, or to its start, and equals the whole run."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from suite.records import record, runs_folder
from suite.training import checkpoint
from suite.training.run import resume, start
from suite.training.trainer import Trainer
from tests.suite.tiny import tiny_arguments, tiny_config
from tests.suite.training.test_resume import RANDOM, equal_runs, interrupted_at

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _bare(monkeypatch):
    """Neither tracking nor pictures: they take longer than these runs."""
    monkeypatch.setenv("SUITE_TRACKING", "off")
    monkeypatch.setattr("suite.training.execution.show_pictures", lambda *_: None)


def flip(path: Path, byte: int, bit: int = 0) -> None:
    """Flips one bit of a file, without touching other names of the same file."""
    content = bytearray(path.read_bytes())
    content[byte] ^= 1 << bit
    path.unlink()
    path.write_bytes(content)


def test_a_flipped_bit_anywhere_in_a_checkpoint_is_noticed(tmp_path):
    content = {"step": 1, "model": {"w": torch.arange(60.0)}, "best": {"step": 1}, "valid": {"loss": 0.5}}
    path = tmp_path / checkpoint.NAME
    checkpoint.write(path, content)
    for byte in range(path.stat().st_size):
        flip(path, byte, byte % 8)
        with pytest.raises(checkpoint.NoCheckpoint, match=r"damaged|cannot be read"):
            checkpoint.load(tmp_path, CPU, pytest.fail)
        flip(path, byte, byte % 8)
    assert checkpoint.load(tmp_path, CPU, pytest.fail)["step"] == 1


@pytest.mark.parametrize("cut", [1, 50, 73, 200, 2000])
def test_a_truncated_checkpoint_is_noticed(tmp_path, cut):
    path = tmp_path / checkpoint.NAME
    checkpoint.write(path, {"step": 1, "model": {"w": torch.arange(600.0)}})
    path.write_bytes(path.read_bytes()[:-cut])
    with pytest.raises(checkpoint.NoCheckpoint):
        checkpoint.load(tmp_path, CPU, pytest.fail)


def test_a_checkpoint_of_an_earlier_version_without_sha256_is_read(tmp_path):
    torch.save({"format": 1, "step": 3}, tmp_path / checkpoint.NAME)
    assert checkpoint.load(tmp_path, CPU, pytest.fail)["step"] == 3


def test_the_last_checkpoints_and_the_best_one_are_kept(tmp_path):
    best = 0
    for step in range(1, 8):
        best = step if step in (1, 3) else best
        checkpoint.save(tmp_path, {"step": step, "best": {"step": best}})
    kept = {path.name: torch.load(path)["step"] for path in tmp_path.iterdir()}
    assert kept == {"checkpoint.pt": 7, "checkpoint.1.pt": 6, "checkpoint.best.pt": 3}
    assert [path.name for path in checkpoint.files(tmp_path)] == [
        "checkpoint.pt",
        "checkpoint.1.pt",
        "checkpoint.best.pt",
    ]


def test_checkpoints_are_kept_without_hard_links(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "link", lambda *_: (_ for _ in ()).throw(OSError(1, "Operation not permitted")))
    test_the_last_checkpoints_and_the_best_one_are_kept(tmp_path)


def test_every_moment_of_a_save_leaves_an_undamaged_checkpoint(tmp_path, monkeypatch):
    """A kill between any two changes of the folder."""
    checkpoint.save(tmp_path, {"step": 1, "best": {"step": 1}})
    real, found = os.replace, list[int]()

    def replace(*paths):
        found.append(checkpoint.load(tmp_path, CPU, pytest.fail)["step"])
        real(*paths)
        found.append(checkpoint.load(tmp_path, CPU, pytest.fail)["step"])

    monkeypatch.setattr(os, "replace", replace)
    for step in (2, 3, 4):
        checkpoint.save(tmp_path, {"step": step, "best": {"step": step}})
    assert found == sorted(found)
    assert {1, 2, 3, 4} == set(found)


@pytest.mark.parametrize("sets", [(), RANDOM])
@pytest.mark.slow
def test_a_run_with_a_damaged_checkpoint_resumes_at_the_one_before_and_reports_it(monkeypatch, capsys, sets):
    whole = start(tiny_config("fashion-mnist", "fem", *sets), data_dir=None, device="cpu").record
    stopped = interrupted_at(monkeypatch, 5, signal.SIGTERM, *sets).record
    flip(runs_folder.home() / stopped.id / checkpoint.NAME, 5000)
    capsys.readouterr()
    resumed = resume(stopped.id, data_dir=None, device="cpu").record
    assert resumed.resumed_at == [4]
    assert equal_runs(resumed, whole)
    err = capsys.readouterr().err
    assert "checkpoint.pt is damaged" in err
    assert "checkpoint.1.pt of step 4 is used instead" in err


def test_with_all_recent_checkpoints_damaged_the_best_one_is_resumed(monkeypatch, capsys):
    whole = start(tiny_config("fashion-mnist", "fem"), data_dir=None, device="cpu").record
    stopped = interrupted_at(monkeypatch, 5, signal.SIGTERM).record
    folder = runs_folder.home() / stopped.id
    best = torch.load(folder / checkpoint.BEST)["step"]
    for name in (checkpoint.NAME, "checkpoint.1.pt"):
        flip(folder / name, 5000)
    assert equal_runs(resume(stopped.id, data_dir=None, device="cpu").record, whole)
    assert f"checkpoint.best.pt of step {best} is used instead" in capsys.readouterr().err


def damage_all(folder: Path) -> None:
    for path in checkpoint.files(folder):
        flip(path, 5000)


def remove_all(folder: Path) -> None:
    for path in checkpoint.files(folder):
        path.unlink()


@pytest.mark.parametrize("lose", [damage_all, remove_all])
@pytest.mark.parametrize("named", [True, False])
@pytest.mark.slow
def test_resume_auto_starts_from_scratch_where_no_checkpoint_is_left(monkeypatch, suite, lose, named):
    stopped = interrupted_at(monkeypatch, 3, signal.SIGTERM, *RANDOM, mixer="softmax").record
    folder = runs_folder.home() / stopped.id
    lose(folder)
    refused = suite("run", "--resume", stopped.id)
    assert (refused.code, refused.err.count("\n")) == (2, 1)
    assert "--resume auto" in refused.err
    arguments = tiny_arguments("fashion-mnist", "softmax", *RANDOM)[1:] if named else []
    ended = suite("run", "--resume", "auto", *arguments)
    assert ended.code == 0, ended.err
    assert "from scratch" in ended.err
    made = record.read(folder / record.NAME)
    fresh = start(tiny_config("fashion-mnist", "softmax", *RANDOM), data_dir=None, device="cpu").record
    assert (made.status, made.resumed_at) == ("finished", [])
    assert equal_runs(made, fresh)
    assert (made.identity, made.created) == (stopped.identity, stopped.created)


def test_resume_auto_continues_the_newest_stopped_run(monkeypatch, suite, runs):
    older = interrupted_at(monkeypatch, 2, signal.SIGTERM, mixer="softmax").record
    newer = interrupted_at(monkeypatch, 3, signal.SIGTERM, "lr=7e-4", mixer="softmax").record
    older_folder = runs / older.id
    renamed = older_folder.rename(runs / f"2020{older.id[4:]}")
    assert suite("run", "--resume", "auto").code == 0
    assert record.read(runs / newer.id / record.NAME).resumed_at == [3]
    assert record.read(renamed / record.NAME).status == "interrupted"


def test_resume_auto_with_a_config_continues_starts_or_reports_the_end(monkeypatch, suite, runs):
    other = interrupted_at(monkeypatch, 2, signal.SIGTERM, "lr=7e-4", mixer="softmax").record
    arguments = ["run", "--resume", "auto", *tiny_arguments("fashion-mnist", "softmax")[1:]]
    assert suite(*arguments).code == 0  # no run of this config: it starts
    [made] = [path for path in runs.iterdir() if path.name != other.id]
    assert record.read(made / record.NAME).resumed_at == []
    again = suite(*arguments)
    assert again.code == 0
    assert f"run {made.name} with this config has ended" in again.err
    assert len(list(runs.iterdir())) == 2
    stopped = interrupted_at(monkeypatch, 4, signal.SIGTERM, mixer="softmax", seed=3).record
    assert suite(*arguments, "--seed", "3").code == 0
    assert record.read(runs / stopped.id / record.NAME).resumed_at == [4]
    assert record.read(runs / other.id / record.NAME).status == "interrupted"


def test_resume_auto_without_a_stopped_run_is_one_line(suite):
    ended = suite("run", "--resume", "auto")
    assert (ended.code, ended.err.count("\n")) == (2, 1)
    assert "no stopped run" in ended.err


def test_a_second_run_of_a_running_config_is_refused_unless_forced(monkeypatch, suite, runs):
    answers: list[Any] = []

    def start_it_again(self, *arguments):
        real(self, *arguments)
        if self.step == 3 and not answers:
            [folder] = runs.iterdir()
            answers.extend([folder, None])
            answers[1] = suite(*tiny_arguments("fashion-mnist", "softmax"))
            assert len(list(runs.iterdir())) == 1
            assert suite(*tiny_arguments("fashion-mnist", "softmax", "lr=7e-4")).code == 0  # another config
            assert suite(*tiny_arguments("fashion-mnist", "softmax"), "--force").code == 0

    real = Trainer._after_update
    monkeypatch.setattr(Trainer, "_after_update", start_it_again)
    assert start(tiny_config("fashion-mnist", "softmax"), data_dir=None, device="cpu").exit_code == 0
    folder, refused = answers
    assert (refused.code, refused.err.count("\n")) == (2, 1)
    assert folder.name in refused.err
    assert f"--resume {folder.name}" in refused.err
    assert "--force" in refused.err
    assert len(list(runs.iterdir())) == 3
    assert suite(*tiny_arguments("fashion-mnist", "softmax")).code == 0  # it has ended

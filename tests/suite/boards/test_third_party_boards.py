"""Boards of third-party tasks and mixers: their records are enough, their code is neither needed nor run."""

from __future__ import annotations

import json
import shutil

import pytest

from suite.tracking.journal import JOURNAL
from tests.suite.tiny import tiny_arguments
from tests.tasks.third_party import EXAMPLE

FEW = ("steps=4", "evals=2", "train_examples=40", "valid_examples=20", "test_examples=20", "digits=4")


@pytest.fixture
def no_foreign_code(monkeypatch):
    for registry in ("backbones.mixers.registry", "tasks.registry"):
        for loader in ("_load_file", "_load_entry"):
            monkeypatch.setattr(f"{registry}.{loader}", lambda *_: pytest.fail("foreign code was loaded"))


def test_runs_of_a_task_file_have_a_board_without_the_file(suite, tmp_path, request):
    file = tmp_path / "here" / "sorting.py"
    file.parent.mkdir()
    shutil.copy(EXAMPLE, file)
    sets = [part for value in FEW for part in ("--set", value)]
    for mixer in ("softmax", "fem"):
        ended = suite(*["run", "--task", f"{file}:Sorting", "--mixer", mixer, "--scale", "board", *sets])
        assert ended.code == 0, ended.err
        assert "sorting.py:Sorting · board" in ended.out  # its board, after the result
    file.unlink()
    request.getfixturevalue("no_foreign_code")
    for task in (f"{file}:Sorting", "sorting.py:Sorting"):
        [board] = json.loads(suite("leaderboard", "--task", task, "--json").out)
        assert (board["task"], board["metric"], board["higher_is_better"]) == ("sorting.py:Sorting", "accuracy", True)
        assert {row["mixer"] for row in board["rows"]} == {"softmax", "fem"}


@pytest.mark.slow
@pytest.mark.parametrize("domain", ["language", "vision", "forecasting"])
def test_a_task_of_any_domain_may_have_any_kind_of_input(suite, tmp_path, domain):
    file = tmp_path / "mine.py"
    file.write_text(EXAMPLE.read_text("utf-8").replace('domain = "recall"', f'domain = "{domain}"'), "utf-8")
    sets = [part for value in (*FEW, "steps=1", "evals=1") for part in ("--set", value)]
    ended = suite(*["run", "--task", f"{file}:Sorting", "--mixer", "softmax", "--scale", "board", *sets])
    assert ended.code == 0, ended.err
    assert suite("doctor").code == 0
    [board] = json.loads(suite("leaderboard", "--domain", domain, "--json").out)
    assert board["task"] == "mine.py:Sorting"


def test_a_mixer_files_row_says_that_its_counts_are_as_recorded(suite, runs, tmp_path, request):
    file = tmp_path / "mine.py"
    file.write_text("from backbones.mixers.deconstructed.variants import NoMixing\nclass Mine(NoMixing):\n    pass\n")
    ended = suite(*tiny_arguments("fashion-mnist", f"{file}:Mine", "steps=1"))
    assert ended.code == 0, ended.err
    [journal] = runs.glob(f"*/{JOURNAL}")
    [record] = runs.glob("*/record.json")
    assert str(tmp_path) not in journal.read_text() + record.read_text()  # what others may see has no paths
    file.unlink()
    request.getfixturevalue("no_foreign_code")
    shown = suite("leaderboard")
    assert "mine.py:Mine" in shown.out
    assert "parameters and FLOPs of third-party mixers are as recorded" in " ".join(shown.out.split())
    assert "and FLOPs are unverified" in " ".join(shown.out.split())
    [board] = json.loads(suite("leaderboard", "--json").out)
    assert [row["flops_verified"] for row in board["rows"]] == [False]
    assert "× unverified |" in suite("leaderboard", "--markdown").out
    assert "(unverified)" in suite("show", record.parent.name).out


def test_a_record_says_whether_flops_are_verified_and_its_board_shows_it(suite, runs, tmp_path, request):
    file = tmp_path / "mine.py"
    file.write_text(
        "from backbones.mixers.deconstructed.variants import NoMixing\n"
        "class Checked(NoMixing):\n    plain_forward = NoMixing.forward\n"
    )
    ended = suite(*tiny_arguments("fashion-mnist", f"{file}:Checked", "steps=1"))
    assert ended.code == 0, ended.err
    [record] = runs.glob("*/record.json")
    assert json.loads(record.read_text())["certificate"]["flops_verified"] is True
    file.unlink()
    request.getfixturevalue("no_foreign_code")
    [board] = json.loads(suite("leaderboard", "--json").out)
    assert [row["flops_verified"] for row in board["rows"]] == [True]
    for command in (("leaderboard",), ("show", record.parent.name)):
        assert "unverified" not in suite(*command).out

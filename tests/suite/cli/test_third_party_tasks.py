"""Tasks of others, as their authors and users handle them on the command line."""

from __future__ import annotations

import json
import re

import pytest

import tasks
from suite.records import record
from tests.suite.cli.user_processes import ROOT, suite_process
from tests.tasks.third_party import EXAMPLE, FILES, NAMED, REASONS, installed_in, write_file


@pytest.fixture
def installed(tmp_path):
    with installed_in(tmp_path) as folder:
        yield folder


def test_package_tasks_are_listed_with_their_origin_and_others_with_the_reason(suite, installed):
    ended = suite("list", "tasks", "--json")
    assert (ended.code, ended.err) == (0, "")
    rows = {row["name"]: row for row in json.loads(ended.out)}
    good = rows["sorting"]
    assert (good["origin"], good["available"], good["reason"]) == ("sorting-tasks 1.2", True, "")
    assert (good["domain"], good["data"], good["scales"]) == ("recall", "synthetic", ["board", "quick"])
    assert (rows["mqar"]["origin"], rows["mqar"]["scales"]) == ("built-in", ["board", "quick", "small", "paper"])
    for name, reason in REASONS.items():
        assert rows[name]["available"] is False
        assert reason in rows[name]["reason"]
        assert "\n" not in rows[name]["reason"]
    table = suite("list", "tasks")
    assert table.code == 0
    [line] = [line for line in table.out.splitlines() if line.startswith("not available here: broken: ")]
    assert line.endswith("a driver is missing")


@pytest.mark.parametrize("name", FILES)
def test_an_unusable_file_ends_every_command_with_one_line_and_exit_code_2(suite, runs, tmp_path, monkeypatch, name):
    text, class_name, said = FILES[name]
    monkeypatch.chdir(tmp_path)
    write_file(tmp_path, text)
    commands = [("run", "--mixer", "fem", "--task"), ("budget", "--mixer", "fem", "--task"), ("data", "info")]
    if text is None or "tasks" in text:  # other files are reported as mixers' by `check`
        commands.append(("check",))
    for command in commands:
        ended = suite(*command, f"mine.py:{class_name}")
        assert (ended.code, ended.out, ended.err.count("\n")) == (2, "", 1)
        assert said in ended.err
        assert "mine.py" in ended.err
    assert not runs.exists()


def test_check_runs_the_contract_of_a_task_with_its_options(suite):
    few = ("--set", "digits=4", "--set", "train_examples=30", "--set", "valid_examples=20", "--set", "test_examples=20")
    ended = suite("check", NAMED, *few, "--json")
    assert (ended.code, ended.err) == (0, "")
    shown = json.loads(ended.out)
    assert (shown["task"], shown["holds"], shown["counts"]["failed"]) == (NAMED, True, 0)
    assert {"batches", "resume", "epochs", "shards", "evaluation", "partition"} <= {
        result["check"] for result in shown["results"] if result["status"] == "ok"
    }


def test_a_task_that_breaks_its_contract_ends_check_with_exit_code_1_and_the_setting(suite, tmp_path):
    text = EXAMPLE.read_text("utf-8")
    whole = "self._digits[split][shard.part(self.n_examples(split))]"
    assert text.count(whole) == 1
    path = write_file(tmp_path, text.replace(whole, "self._digits[split]"))
    few = ("--set", "train_examples=30", "--set", "valid_examples=20", "--set", "test_examples=20")
    ended = suite("check", f"{path}:Sorting", *few, "--json")
    assert ended.code == 1
    failed = [result for result in json.loads(ended.out)["results"] if result["status"] == "failed"]
    assert [result["check"] for result in failed] == ["partition"]
    assert failed[0]["setting"] == {"split": "train", "world": 2, "sizes": "[30, 30]", "examples": 30}
    assert "FAILS" in suite("check", f"{path}:Sorting", *few).out


FEW = {"digits": 5, "train_examples": 100, "valid_examples": 40, "test_examples": 40, "steps": 6, "evals": 2}


def few_steps() -> list[str]:
    return [part for name, value in FEW.items() for part in ("--set", f"{name}={value}")]


@pytest.mark.slow
def test_the_example_is_run_from_another_folder_and_an_edited_copy_is_another_task(tmp_path):
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    write_file(folder, None)
    run = ("run", "--mixer", "softmax", "--scale", "board", "--device", "cpu", *few_steps(), "--json", "--task")
    documents = []
    for task in (NAMED, "mine.py:Sorting"):
        done = suite_process(folder, *run, task)
        assert done.returncode == 0, done.stderr
        documents.append(json.loads(done.stdout))
    write_file(folder, EXAMPLE.read_text("utf-8") + "# edited\n")
    done = suite_process(folder, *run, "mine.py:Sorting")
    assert done.returncode == 0, done.stderr
    documents.append(json.loads(done.stdout))
    first, copied, edited = documents
    assert (first["task"], first["status"]) == ("sorting.py:Sorting", "finished")  # without the folder
    assert first["code"]["task_origin"] == tasks.origin(NAMED)
    assert copied["code"]["task_origin"].partition("@")[2] == first["code"]["task_origin"].partition("@")[2]
    assert edited["code"]["task_origin"] != copied["code"]["task_origin"]
    assert len({made["identity"] for made in documents}) == 3
    assert first["metrics"] == copied["metrics"] == edited["metrics"]
    read = {path.parent.name.split("-")[2]: record.read(path) for path in (folder / "runs").glob("*/record.json")}
    assert set(read) == {"Sorting"}
    boards = json.loads(suite_process(folder, "leaderboard", "--json").stdout)
    assert [board["task"] for board in boards] == ["mine.py:Sorting", "mine.py:Sorting", "sorting.py:Sorting"]
    for task, count in ((NAMED, 1), ("mine.py:Sorting", 2), ("sotu", 0)):
        assert len(json.loads(suite_process(folder, "leaderboard", "--task", task, "--json").stdout)) == count


@pytest.mark.slow
def test_reading_a_board_runs_no_code_of_the_task(suite, tmp_path, monkeypatch):
    path = write_file(tmp_path, None)
    monkeypatch.chdir(tmp_path)
    run = ("run", "--task", "mine.py:Sorting", "--mixer", "softmax", "--scale", "board", *few_steps())
    assert suite(*run).code == 0
    path.write_text("raise SystemExit('the file was run')\n")
    [board] = json.loads(suite("leaderboard", "--json").out)
    assert (board["task"], len(board["rows"])) == ("mine.py:Sorting", 1)
    path.unlink()
    assert json.loads(suite("leaderboard", "--json").out) == [board]


def documented_commands() -> list[list[str]]:
    """The `suite` commands of docs/adding-a-task.md."""
    lines = re.findall(r"^suite (.+)$", (ROOT / "docs" / "adding-a-task.md").read_text("utf-8"), re.MULTILINE)
    return [line.split() for line in lines if line != "check sorting"]  # exists once the author's package is installed


@pytest.mark.slow
def test_the_documented_commands_work_as_written(suite, monkeypatch):
    monkeypatch.chdir(ROOT)
    few = {name: value for name, value in FEW.items() if name not in ("steps", "evals")}
    for arguments in documented_commands():
        more = few_steps() if arguments[0] == "run" else []  # the same command, fewer steps
        if arguments[0] == "check":
            more = [part for name, value in few.items() for part in ("--set", f"{name}={value}")]
        ended = suite(*arguments, *more)
        assert (ended.code, "error" in ended.err) == (0, False), (arguments, ended.err)
        if arguments[0] == "leaderboard":
            assert "fem" in ended.out
            assert "sorting.py:Sorting" in ended.out
    assert [arguments[0] for arguments in documented_commands()] == ["check", "run", "run", "leaderboard", "list"]

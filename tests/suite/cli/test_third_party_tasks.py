"""Tasks of others, as their authors and users handle them on the command line."""

from __future__ import annotations

import json

import pytest

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

"""Tasks of others, as their authors and users handle them on the command line."""

from __future__ import annotations

import json

import pytest

from tests.tasks.third_party import FILES, REASONS, installed_in, write_file


@pytest.fixture
def installed(tmp_path):
    with installed_in(tmp_path) as folder:
        yield folder


def test_package_tasks_are_listed_with_their_origin_and_unusable_ones_with_the_reason(suite, installed):
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
    for command in (("run", "--mixer", "fem", "--task"), ("budget", "--mixer", "fem", "--task"), ("data", "info")):
        ended = suite(*command, f"mine.py:{class_name}")
        assert (ended.code, ended.out, ended.err.count("\n")) == (2, "", 1)
        assert said in ended.err
        assert "mine.py" in ended.err
    assert not runs.exists()

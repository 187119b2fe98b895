"""A mixer in a user's own file: `path/to/file.py:Class` works in every command, and an invalid file is explained."""

from __future__ import annotations

import json
import re

import pytest

from backbones.mixers import registry
from backbones.mixers.errors import MixerError
from suite.records import record
from tests.suite.cli.user_processes import EXAMPLE, ROOT, suite_process
from tests.suite.tiny import tiny_arguments

NAMED = f"{EXAMPLE}:MovingAverage"


@pytest.mark.slow
def test_the_example_passes_the_contract(tmp_path):
    done = suite_process(tmp_path / "elsewhere", "check", NAMED, "--json")
    assert (done.returncode, done.stderr) == (0, "")
    document = json.loads(done.stdout)
    assert document["mixer"] == NAMED
    assert document["holds"] is True
    assert document["counts"]["failed"] == 0
    passed = {(r["check"], r["causal"]) for r in document["results"] if r["status"] == "ok"}
    assert passed >= {
        ("prefix", True),
        ("step", True),
        ("reach", False),
        ("padding", True),
        ("padding", False),
        ("parameters", False),
    }


@pytest.mark.slow
def test_the_example_is_sized_run_and_ranked_like_a_built_in_mixer(tmp_path):
    folder = tmp_path / "elsewhere"
    budget = suite_process(
        folder, "budget", "--task", "household-power", "--mixer", NAMED, "--scale", "board", "--json"
    )
    assert (budget.returncode, budget.stderr) == (0, "")
    certificate = json.loads(budget.stdout)
    assert certificate["matched"] is True
    assert certificate["mixer_options"]["width"] > 0
    done = suite_process(folder, *tiny_arguments("sotu", NAMED, "dim=64"), "--json")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    [path] = (folder / "runs").glob("*/record.json")
    assert record.read(path).model_dump(mode="json", by_alias=True) == document
    assert document["status"] == "finished"
    assert document["mixer"] == "moving_average.py:MovingAverage"  # without the folder
    assert document["code"]["mixer_origin"] == registry.origin(NAMED)
    assert document["code"]["mixer_origin"].startswith("moving_average.py@")
    assert path.parent.name.split("-")[2:4] == ["sotu", "MovingAverage"]
    board = json.loads(suite_process(folder, "leaderboard", "--json").stdout)
    assert [row["mixer"] for b in board for row in b["rows"]] == ["moving_average.py:MovingAverage"]


@pytest.mark.slow
def test_a_wrong_parameter_count_fails_the_check_with_exit_code_1(tmp_path):
    text = EXAMPLE.read_text("utf-8")
    assert text.count("parameters=3 * E * dim + E") == 1
    (tmp_path / "mine.py").write_text(text.replace("parameters=3 * E * dim + E", "parameters=3 * E * dim"))
    done = suite_process(tmp_path, "check", "mine.py:MovingAverage", "--json")
    assert (done.returncode, done.stderr) == (1, "")
    document = json.loads(done.stdout)
    assert document["holds"] is False
    failed = [r for r in document["results"] if r["status"] == "failed"]
    assert {r["check"] for r in failed} == {"parameters"}
    assert failed[0]["setting"]["counted"] > failed[0]["setting"]["stated"]


#: By name: the file (None: the example), the class, and what the message must contain.
INVALID_FILES = {
    "syntax error": ("class Mine(:\n", "Mine", "SyntaxError"),
    "missing import": (
        "import nothing_of_that_name\n",
        "Mine",
        "ModuleNotFoundError",
        "nothing_of_that_name",
    ),
    "error of several lines": ("raise ValueError('one\\ntwo')\n", "Mine", "ValueError: one two"),
    "missing class": ("x = 1\n", "Mine", "'Mine'", "no other mixer"),
    "misspelt class": (None, "MovingAvrage", "'MovingAvrage'", "did you mean 'MovingAverage'"),
    "another class": (None, "Zzz", "'Zzz'", "MovingAverage"),
    "not a mixer": ("class Mine: ...\n", "Mine", "backbones.mixers.base.Mixer"),
    "not a class": ("Mine = 3\n", "Mine", "backbones.mixers.base.Mixer"),
    "unfinished": (
        "from backbones.mixers.base import Mixer\nclass Mine(Mixer): ...\n",
        "Mine",
        "candidates, cost, forward",
    ),
    "without a config": (
        "from examples.moving_average import MovingAverage\nclass Mine(MovingAverage):\n    Config = None\n",
        "Mine",
        "Config",
    ),
    "a name that is taken": (
        "from backbones.mixers.fem.fem import Fem\nfrom backbones.mixers.registry import register\n"
        "@register('fem')\nclass Mine(Fem): ...\n",
        "Mine",
        "'fem'",
    ),
}


@pytest.mark.parametrize("command", ["check", "budget", "run"])
@pytest.mark.parametrize("name", INVALID_FILES)
def test_an_invalid_mixer_file_is_one_line_and_exit_code_2(suite, runs, tmp_path, monkeypatch, name, command):
    text, class_name, *parts = INVALID_FILES[name]
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(EXAMPLE.read_text("utf-8") if text is None else text)
    mixer = f"mine.py:{class_name}"
    ended = suite("check", mixer) if command == "check" else suite(command, "--task", "sotu", "--mixer", mixer)
    assert (ended.code, ended.out, ended.err.count("\n")) == (2, "", 1)
    assert [part for part in (*parts, "mine.py") if part not in ended.err] == [], ended.err
    assert not runs.exists()


def test_a_fixed_file_is_read_again_after_a_failure(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text("class Mine(:\n")
    with pytest.raises(MixerError, match="SyntaxError"):
        registry.get(f"{path}:MovingAverage")
    path.write_text(EXAMPLE.read_text("utf-8"))
    assert registry.get(f"{path}:MovingAverage").__name__ == "MovingAverage"


def documented_commands() -> list[list[str]]:
    """The `suite` commands of docs/adding-a-mixer.md."""
    lines = re.findall(r"^suite (.+)$", (ROOT / "docs" / "adding-a-mixer.md").read_text("utf-8"), re.MULTILINE)
    only_installed = "check moving-average"  # the name exists once the author's package is installed
    return [line.split() for line in lines if line != only_installed]


@pytest.mark.slow
def test_the_documented_commands_work_as_written(suite, monkeypatch):
    monkeypatch.chdir(ROOT)
    done = []
    for arguments in documented_commands():
        few = tiny_arguments("sotu", "", "dim=64")[7:] if arguments[0] == "run" else []  # the same command, fewer steps
        ended = suite(*arguments, *few)
        assert (ended.code, "error" in ended.err) == (0, False), (arguments, ended.err)
        done.append((arguments[0], "MovingAverage" in ended.out or "moving-average" in ended.out))
    assert [name for name, _ in done] == ["check", "budget", "run", "leaderboard", "list"]
    assert all(shown for name, shown in done if name != "list")

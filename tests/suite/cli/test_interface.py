"""The command line: its commands and options are fixed, every help has an example, `--json` prints one document."""

from __future__ import annotations

import inspect
import json
import os
import re
import subprocess
import sys

import pytest
import typer

from suite.cli import app
from suite.cli.commands import run
from suite.records import record
from tests.suite.tiny import made_record, tiny_arguments

CONFIG = {"--task", "--mixer", "--scale", "--horizon", "--track", "--hybrid", "--set", "--recipe"}
#: The whole command line. A change here affects every user: keep old names working, or describe the change in the
#: release notes.
COMMANDS = {
    "run": CONFIG
    | {
        "--seed",
        "--steps",
        "--data-dir",
        "--verify-data",
        "--device",
        "--threads",
        "--workers",
        "--deterministic",
        "--devices",
        "--parallel",
        "--resume",
        "--force",
        "--unmatched",
        "--skip-variant-layers",
        "--json",
    },
    "sweep": {
        "--task",
        "--mixer",
        "--scale",
        "--seeds",
        "--lrs",
        "--hybrid",
        "--set",
        "--data-dir",
        "--device",
        "--on",
        "--address",
        "--gpus-per-run",
        "--jobs",
        "--threads",
        "--workers",
        "--deterministic",
        "--plan",
        "--dry-run",
        "--json",
    },
    "plan": {
        *("--task", "--mixer", "--scale", "--gpus", "--gpu", "--parallel", "--mfu", "--seeds", "--lrs"),
        *("--hybrid", "--set", "--check", "--markdown", "--json"),
    },
    "list tasks": {"--json"},
    "list mixers": {"--json"},
    "list runs": {"--task", "--status", "--json"},
    "show": CONFIG | {"RUN", "--json"},
    "budget": CONFIG | {"--json"},
    "data info": {"TASK", "--data-dir", "--scale", "--set", "--json"},
    "data prepare": {"TASK", "--data-dir", "--scale", "--set", "--json"},
    "leaderboard": {
        *("--task", "--domain", "--scale", "--records", "--output", "--check"),
        *("--markdown", "--csv", "--latex", "--json"),
    },
    "submit": {"RUN", "--author", "--notes", "--output", "--unfinished", "--json"},
    "verify": {"PATH", "--replay", "--reproduce", "--mixer", "--trust-source", "--badge", "--json"},
    "enter": {
        *("MIXER", "--task", "--scale", "--set", "--data-dir", "--device", "--jobs", "--threads"),
        *("--author", "--notes", "--output", "--records", "--yes", "--json"),
    },
    "plot": {"RUN", "--task", "--mixer", "--records", "--output", "--json"},
    "compare": {"A", "B", "--task", "--scale", "--records", "--json"},
    "ui": {"--task", "--port", "--browser", "--no-browser"},
    "bench": {
        "KIND",
        "--mixer",
        "--lengths",
        "--against",
        "--rounds",
        "--threads",
        "--device",
        "--plot",
        "--out",
        "--json",
    },
    "publish": {"--task", "--records", "--json"},
    "upload": {"--json", "RUN"},
    "doctor": {"--store", "--json"},
    "forecasts": {"RUN", "--data-dir", "--device", "--json"},
    "generate": {"RUN", "--prompt", "--tokens", "--temperature", "--top-k", "--seed", "--device", "--json"},
    "lm-eval": {"RUN", "--tasks", "--limit", "--include", "--batch-size", "--device", "--json"},
    "check": {"NAME", "--data-dir", "--set", "--slow", "--json"},
}


def parameter_names(command) -> set[str]:
    names = set()
    for parameter in command.params:
        options = [*parameter.opts, *parameter.secondary_opts]
        names |= (
            {parameter.metavar.strip("[]")}
            if parameter.param_type_name == "argument"
            else {o for o in options if o != "--help"}
        )
    return names


def commands_below(command, path: str = "") -> dict[str, set[str]]:
    if hasattr(command, "commands"):
        return {
            name: found
            for part, sub in command.commands.items()
            for name, found in commands_below(sub, f"{path} {part}".strip()).items()
        }
    return {path: parameter_names(command)}


def test_commands_and_options_are_unchanged():
    assert commands_below(typer.main.get_command(app.app)) == COMMANDS


@pytest.mark.parametrize("name", COMMANDS)
def test_the_help_of_every_command_has_an_example(suite, monkeypatch, name):
    monkeypatch.setenv("COLUMNS", "200")
    ended = suite(*name.split(), "--help")
    assert ended.code == 0
    usage, _, rest = ended.out.partition("Usage: ")[2].partition("\n")
    assert usage.startswith(f"suite {name} ")
    assert f"suite {name}" in rest


def test_run_defaults_to_the_quick_scale_and_seed_zero():
    from suite.models.resolve import resolve

    config = resolve(task="sotu", mixer="fem")
    assert (config.scale, config.seed) == ("quick", 0)
    assert inspect.signature(run.run).parameters["device"].default == "auto"


@pytest.mark.parametrize(
    ("name", "scale"), [("run", "quick"), ("budget", "quick"), ("sweep", "board"), ("enter", "board")]
)
def test_the_help_shows_the_scale_that_a_command_takes(suite, monkeypatch, name, scale):
    monkeypatch.setenv("COLUMNS", "200")
    option = suite(name, "--help").out.partition("--scale ")[2]
    assert re.findall(r"\[default: \(?(\w+)\)?\]", option)[0] == scale


@pytest.mark.parametrize(
    "arguments",
    [
        "list tasks",
        "list mixers",
        "show --task sotu --mixer fem",
        "budget --task household-power --mixer fem --scale board",
        "data info fashion-mnist",
        "data info imagenet100",
        "data prepare fashion-mnist",
        "leaderboard",
    ],
)
def test_json_is_one_document_on_stdout_and_nothing_else(suite, arguments):
    ended = suite(*arguments.split(), "--json")
    assert ended.code == 0, ended.err
    json.loads(ended.out)


@pytest.mark.slow  # it opens the tracking store
def test_the_doctors_json_is_one_document(suite):
    ended = suite("doctor", "--json")
    checks = json.loads(ended.out)
    assert ended.code == 0, checks
    assert {check["name"] for check in checks} >= {"packages", "runs folder", "records", "tracking store"}


def test_the_json_of_a_run_is_its_record(suite, runs):
    ended = suite(*tiny_arguments("fashion-mnist", "fem"), "--json")
    assert ended.code == 0, ended.err
    shown = json.loads(ended.out)
    [path] = runs.glob("*/record.json")
    assert shown == json.loads(path.read_text())
    assert shown["hash"]
    shown_again = suite("show", shown["id"], "--json")
    assert json.loads(shown_again.out) == shown
    board = json.loads(suite("leaderboard", "--task", "fashion-mnist", "--json").out)
    assert [row["runs"] for b in board for row in b["rows"]] == [[shown["id"]]]


def test_the_json_of_a_budget_has_the_documented_keys(suite):
    shown = json.loads(suite("budget", "--task", "imagenet100", "--mixer", "fem", "--json").out)
    documented = (
        "task mixer matched parameters reference_parameters ratio mixer_parameters "
        "reference_mixer_parameters mixer_ratio"
    )
    assert {*documented.split(), "flops", "reference_flops", "state_bytes"} <= shown.keys()
    assert shown["matched"] is True


def test_markdown_and_tables_go_to_stdout(suite, runs):
    for name, mixer in (("a", "softmax"), ("b", "fem")):
        (runs / name).mkdir(parents=True)
        record.write(runs / name, made_record(mixer, name=name))
    markdown = suite("leaderboard", "--markdown")
    assert markdown.out.startswith("**fashion-mnist · board**")
    assert markdown.err == ""
    assert "fashion-mnist · board" in suite("leaderboard").out


def test_a_budget_that_is_exceeded_has_exit_code_1_and_names_what_fits(suite):
    ended = suite("budget", "--task", "fashion-mnist", "--mixer", "fem", "--set", "d_v=512", "--json")
    shown = json.loads(ended.out)
    assert ended.code == 1
    assert shown["matched"] is False
    assert shown["nearest_fit"].startswith("mixer.d_v=")
    assert "not matched" in suite("budget", "--task", "fashion-mnist", "--mixer", "fem", "--set", "d_v=512").out


def test_flops_that_nothing_verifies_are_shown_as_such(suite, tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(
        "from backbones.mixers.deconstructed.variants import NoMixing\n"
        "class Bare(NoMixing):\n    pass\n"
        "class Checked(NoMixing):\n    plain_forward = NoMixing.forward\n"
    )
    for mixer, verified in (("softmax", True), (f"{file}:Checked", True), (f"{file}:Bare", False)):
        arguments = ("budget", "--task", "fashion-mnist", "--mixer", mixer)
        assert json.loads(suite(*arguments, "--json").out)["flops_verified"] is verified
        assert ("(unverified)" in suite(*arguments).out) is not verified
        assert ("(unverified)" in suite("show", *arguments[1:]).out) is not verified


@pytest.mark.parametrize("given", [("show",), ("budget",)])
@pytest.mark.slow
def test_a_table_of_costs_is_printed_for_every_config(suite, given):
    for mixer in ("softmax", "baseline/dlinear"):
        ended = suite(*given, "--task", "household-power", "--mixer", mixer, "--scale", "board")
        assert ended.code == (1 if given == ("budget",) and "/" in mixer else 0), ended.err
        assert "forward FLOPs per window" in ended.out


def test_the_record_of_a_run_is_printed_with_its_costs(suite, runs):
    ended = suite(*tiny_arguments("fashion-mnist", "fem"))
    assert ended.code == 0, ended.err
    [path] = runs.glob("*/record.json")
    shown = suite("show", path.parent.name)
    assert shown.code == 0, shown.err
    assert "forward FLOPs per image" in shown.out
    assert "(unverified)" not in shown.out


def test_paths_with_brackets_are_printed_unchanged(suite, tmp_path, monkeypatch):
    """Square brackets are markup for rich."""
    folder = tmp_path / "a[/b]c[red]"
    monkeypatch.setenv("SUITE_HOME", str(folder))
    ended = suite("leaderboard")
    assert ended.code == 0
    assert "".join(str(folder).split()) in "".join(ended.err.split())


@pytest.mark.slow
def test_doctor_opens_a_store_without_output_of_mlflow(tmp_path):
    environment = {**os.environ, "SUITE_HOME": str(tmp_path / "runs")}
    command = [sys.executable, "-m", "suite", "doctor", "--json"]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert next(check["message"] for check in json.loads(ended.stdout) if check["name"] == "tracking store").startswith(
        "reachable"
    )

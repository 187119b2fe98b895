"""`suite list runs`, and how every command finds a run."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
import typer

from suite.cli import app
from suite.errors import UserError
from suite.records import record, runs_folder
from suite.records.listed import listed_runs, step_of_checkpoint
from suite.training import checkpoint
from tests.suite.tiny import made_record


def new_run(runs, name: str, *, task: str = "fashion-mnist"):
    """A folder as a run leaves it before its first checkpoint."""
    folder = runs / name
    folder.mkdir(parents=True)
    config = {"task": task, "mixer": "softmax", "scale": "board", "seed": 0, "train": {"steps": 6}}
    content = {"config": config, "data_dir": None, "created": "2026-01-01T00:00:00+00:00", "identity": "i"}
    (folder / runs_folder.CONFIG).write_text(json.dumps(content))
    return folder


def add_record(folder, **changes):
    record.write(folder, made_record(name=folder.name, **changes))


def stop_at(folder, step: int):
    checkpoint.save(
        folder, {"identity": "i", "step": step, "optimizer": {"step": torch.tensor(9)}, "best": {"step": 1}}
    )


def test_every_run_is_listed_with_its_state_and_damaged_ones_are_named(suite, runs):
    """A folder with one run of each kind: damage costs no other run its place in the list."""
    folders = {
        name: new_run(runs, f"20260101-00000{i}-{name}-aaa{i}")
        for i, name in enumerate(["done", "diverged", "stopped", "config", "edited", "garbage"])
    }
    add_record(folders["done"], value=0.75)
    add_record(folders["diverged"], status="diverged")
    stop_at(folders["stopped"], 4)
    (folders["config"] / runs_folder.CONFIG).write_text("{")
    add_record(folders["edited"])
    path = folders["edited"] / record.NAME
    path.write_text(path.read_text().replace('"seed": 0', '"seed": 1'))
    (folders["garbage"] / record.NAME).write_bytes(b"\xff\x00")
    ended = suite("list", "runs", "--json")
    assert ended.code == 0, ended.err
    rows = {row["id"].split("-")[2]: row for row in json.loads(ended.out)}
    assert {name: row["status"] for name, row in rows.items()} == {
        "done": "finished",
        "diverged": "diverged",
        "stopped": "stopped",
        **dict.fromkeys(("config", "edited", "garbage"), "damaged"),
    }
    assert (rows["done"]["metric"], rows["done"]["value"], rows["done"]["step"]) == (
        "top1",
        0.75,
        rows["done"]["steps"],
    )
    assert (rows["stopped"]["step"], rows["stopped"]["steps"]) == (4, 6)
    assert rows["stopped"]["resume"] == "suite run --resume aaa2"
    assert runs_folder.find_run("aaa2") == folders["stopped"]
    assert all(rows[name]["reason"] for name in ("config", "edited", "garbage"))
    assert [rows[name]["resume"] for name in rows if name != "stopped"] == [None] * 5
    table = suite("list", "runs").out
    assert all(folder.name in table for folder in folders.values())
    assert "top1 75.00 %" in table
    assert "hash: it does not match" in table


def test_the_list_is_filtered_and_the_newest_run_comes_first(suite, runs):
    names = ["20260101-000000-a-1111", "20260101-000001-b-2222", "20260101-000002-c-3333"]
    for name, task in zip(names, ("sotu", "fashion-mnist", "sotu"), strict=True):
        new_run(runs, name, task=task)
    assert [each.id for each in listed_runs()] == names[::-1]
    assert [each.id for each in listed_runs(task="sotu")] == [names[2], names[0]]
    assert [each.id for each in listed_runs(status="finished")] == []
    with runs_folder.locked(runs / names[1]):
        [running] = listed_runs(status="running")
    assert (running.id, running.resume) == (names[1], None)
    for given, parts in ((("--status", "Stoped"), ["'stopped'"]), (("--task", "Sotu"), ["'sotu'"])):
        ended = suite("list", "runs", *given)
        assert (ended.code, ended.err.count("\n")) == (2, 1)
        assert all(part in ended.err for part in parts)
    assert "suite run --task" in suite("list", "runs", "--status", "diverged").err


def test_the_step_of_a_checkpoint_is_read_without_loading_it(tmp_path):
    for step in (0, 1, 255, 256, 70_000, 10**9):
        stop_at(tmp_path, step)
        assert step_of_checkpoint(tmp_path / checkpoint.NAME) == step
    path = tmp_path / checkpoint.NAME
    for damaged in (path.read_bytes()[:200], b"", b"PK\x05\x06" + bytes(18)):
        path.write_bytes(damaged)
        assert step_of_checkpoint(path) is None
    assert step_of_checkpoint(tmp_path / "none") is None


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ("20260102-000000-sotu-fem-board-s0-9f3c", 1),
        ("9f3c", 1),
        ("sotu-fem-board", 1),
        ("SOTU-Fem", 1),
        ("20260101", 0),
        ("latest", 2),
        ("fem-ssm", 2),
    ],
)
def test_a_run_is_found_by_any_unique_part_of_its_id(runs, given, found):
    ids = ["20260101-000000-sotu-softmax-board-s0-0000", "20260102-000000-sotu-fem-board-s0-9f3c"]
    ids.append("20260103-000000-mqar-fem-ssm-board-s0-77fe")
    folders = [new_run(runs, name) for name in ids]
    assert runs_folder.find_run(given) == folders[found]
    assert runs_folder.find_run(str(folders[found])) == folders[found]


def test_the_latest_of_runs_of_the_same_second_was_started_last(runs):
    for name in ("20260101-000000-b-1111", "20260101-000000-a-2222"):
        folder = new_run(runs, name)
    assert runs_folder.find_run("latest") == folder


@pytest.mark.parametrize(
    ("given", "parts"),
    [
        ("board", ["2 runs", "20260102-000000-sotu-fem-board-s0-9f3c", "suite list runs"]),
        ("20260102-000000-sotu-fme-board-s0-9f3c", ["did you mean '20260102-000000-sotu-fem-board-s0-9f3c'"]),
        ("xyz", ["no run 'xyz' among the 2", "newest: 20260102", "suite list runs"]),
        ("", ["no run ''"]),
        ("*", ["no run '*'"]),
    ],
)
def test_no_run_or_several_is_one_line_with_candidates(runs, given, parts):
    for name in ("20260101-000000-sotu-softmax-board-s0-0000", "20260102-000000-sotu-fem-board-s0-9f3c"):
        new_run(runs, name)
    with pytest.raises(UserError) as error:
        runs_folder.find_run(given)
    assert all(part in str(error.value) for part in parts), error.value
    assert "\n" not in str(error.value)


def test_without_any_run_the_message_says_how_to_start_one(runs):
    with pytest.raises(UserError, match=r"no runs in .*SUITE_HOME.*suite run"):
        runs_folder.find_run("latest")


def test_every_command_that_takes_a_run_says_how_it_may_be_named():
    """All of them look it up with `find_run`; a command with a text of its own would be a second rule."""
    root: Any = typer.main.get_command(app.app)
    inner = [part for group in root.commands.values() for part in getattr(group, "commands", {}).values()]
    commands = [*root.commands.values(), *inner]
    arguments = [
        p for c in commands for p in c.params if (p.metavar or "").strip("[]") == "RUN" or "--resume" in p.opts
    ]
    assert len(arguments) >= 7
    assert [p.help for p in arguments if "latest" not in p.help] == []


@pytest.mark.parametrize("command", ["show", "generate", "forecasts", "upload", "submit --author ada", "run --resume"])
def test_every_command_finds_runs_by_the_same_rule(suite, runs, monkeypatch, command):
    wanted = new_run(runs, "20260102-000000-sotu-fem-board-s0-9f3c")
    new_run(runs, "20260101-000000-sotu-softmax-board-s0-0000")
    found, real = [], runs_folder.find_run

    def find_run(run):
        found.append(real(run))
        return found[-1]

    monkeypatch.setattr(runs_folder, "find_run", find_run)
    for given in ("latest", "sotu-fem"):
        suite(*command.split(), given)
    assert len(found) >= 2
    assert set(found) == {wanted}

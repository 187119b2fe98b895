"""Reproducing real tiny runs: each is an ordinary run in a folder of its own, and a stopped command continues."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest

import tasks
from suite.records import badges, provenance
from suite.submissions import entry
from suite.submissions.retraining import FOLDER
from tests.suite.submissions.made import Content, forge, records
from tests.suite.submissions.test_commands import RECIPE, in_this_process
from tests.suite.tiny import figures
from tests.suite.training.run_helpers import at_step

pytestmark = pytest.mark.slow  # each trains


@pytest.fixture(scope="module")
def entered(tmp_path_factory) -> Path:
    """An entry with one race of real tiny runs."""
    from suite.submissions.submit import submit
    from suite.sweeps.plan import Wanted, entrants

    root = tmp_path_factory.mktemp("author")
    with pytest.MonkeyPatch.context() as patch:
        world(patch)
        patch.setenv("SUITE_HOME", str(root / "runs"))
        found, _ = entrants(Wanted(("sotu",), ("no-mixing",), "board", ()))
        in_this_process(found, None)
        submit(["latest"], author="ada", notes=None, folder=root / "entries" / "ada", unfinished=False)
    return root / "entries" / "ada"


def world(patch: pytest.MonkeyPatch) -> None:
    """Tiny runs, as from a clean commit, without tracking and pictures."""
    patch.setenv("SUITE_TRACKING", "off")
    patch.setattr("suite.training.execution.show_pictures", lambda *_: None)
    patch.setattr("suite.config.recipe._recipe_file", lambda task: RECIPE)
    patch.setattr(provenance, "_git", lambda *words: "" if words[0] == "status" else "a" * 40)


@pytest.fixture
def elsewhere(entered, tmp_path, monkeypatch) -> Path:
    """The entry, on a machine with another processor and an empty runs folder."""
    import shutil

    world(monkeypatch)
    monkeypatch.setattr(provenance, "_processor", lambda: "another processor")
    return Path(shutil.copytree(entered, tmp_path / "entries" / "ada"))


def own_runs(runs: Path) -> list[Path]:
    return sorted((runs / FOLDER).glob("*/*/record.json"))


def test_a_real_row_is_reproduced_once_and_its_runs_are_on_no_board(suite, elsewhere, runs):
    words = ("verify", str(elsewhere), "--reproduce", "3", "--badge", "--json")
    ended = suite(*words)
    assert ended.code == 0, ended
    [shown] = json.loads(ended.out)["reproduced"]
    assert (len(shown["seeds"]), shown["difference"]) == (3, 0)  # it is the same machine, in truth
    assert shown["deviation"] > 0
    written = {path: path.read_bytes() for path in own_runs(runs)}
    assert len(written) == 6
    assert {badge.kind for badge in badges.by_record(badges.read(elsewhere.parents[1])).values()} == {
        "reported",
        "reproduced",
    }
    again = suite(*words)
    assert json.loads(again.out)["reproduced"] == [shown]
    assert {path: path.read_bytes() for path in own_runs(runs)} == written
    assert suite("leaderboard", "--json").out.strip() == "[]"
    assert os.environ["SUITE_HOME"] == str(runs)


def test_a_stopped_command_continues_with_the_same_seeds(suite, elsewhere, runs, monkeypatch):
    words = ("verify", str(elsewhere), "--reproduce", "3", "--json")
    with monkeypatch.context() as patch:
        at_step(patch, 8, lambda: os.kill(os.getpid(), signal.SIGTERM))
        ended = suite(*words)
    assert (ended.code, ended.out) == (128 + signal.SIGTERM, "")
    assert "the same command continues" in ended.err
    [stopped] = own_runs(runs)
    ended = suite(*words)
    assert ended.code == 0, ended
    assert json.loads(stopped.read_text())["status"] == "finished"
    assert json.loads(stopped.read_text())["resumed_at"] == [8]
    assert len(own_runs(runs)) == 6


def test_real_figures_that_were_edited_do_not_reproduce(suite, elsewhere):
    def change(content: Content) -> None:
        measured = content["metrics"]["test"]["bits_per_byte"]
        content["metrics"]["test"] = figures(tasks.get("sotu")(), measured - 0.5)
        units = content["test_units"]  # a careful forger edits these too
        units["sums"] = [each * (measured - 0.5) / measured for each in units["sums"]]

    (elsewhere / entry.NOTES).write_text("A mixer without mixing.\n")
    paths = [elsewhere / name for name in records(elsewhere)]
    for path in paths:
        forge(elsewhere, change, path, list_again=path == paths[-1])
    assert suite("verify", str(elsewhere)).code == 0
    ended = suite("verify", str(elsewhere), "--reproduce", "3")
    assert ended.code == 1
    assert "[reproduced]" in ended.out


def test_the_author_cannot_reproduce_on_the_machine_of_the_runs(suite, entered, runs, monkeypatch):
    world(monkeypatch)
    monkeypatch.setenv("SUITE_HOME", str(entered.parents[1] / "runs"))
    ended = suite("verify", str(entered), "--reproduce", "3", "--badge")
    assert (ended.code, ended.err.count("\n")) == (2, 1)
    monkeypatch.setattr(provenance, "_processor", lambda: "another processor")
    ended = suite("verify", str(entered), "--reproduce", "3", "--badge")
    assert ended.code == 2
    assert "is in the runs folder" in ended.err

"""`suite verify` and `suite enter` on the command line: exit codes, JSON, badges, and a contributor's whole path."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from suite.records import badges, provenance
from suite.submissions import entry
from suite.submissions.faults import Fault
from suite.sweeps.entrant import score_of
from suite.sweeps.scheduler import Progress, next_run
from suite.training.run import resume_newest
from tests.suite.submissions.made import copy_of, path_of, records
from tests.test_docs import ROOT

EXAMPLE = f"{ROOT}/examples/moving_average.py:MovingAverage"
#: A recipe whose runs take a fraction of a second. The replayed steps are all of them.
RECIPE = {
    "board": {
        "model": {"dim": 32, "heads": 2, "depth": 2, "ffn_width": 88},
        "data": {"length": 16, "valid_limit": 16, "test_limit": 16},
        "train": {"steps": 12, "batch_size": 8, "evals": 2, "lr": 2e-3},
    }
}


def test_a_sound_entry_has_exit_code_0_and_a_fault_1(suite, template, tmp_path):
    folder = copy_of(template, tmp_path)
    for place in (tmp_path, tmp_path / "entries", folder, path_of(folder)):
        ended = suite("verify", str(place))
        assert (ended.code, ended.out) == (0, ""), ended
        assert "no fault" in ended.err
    (folder / entry.NOTES).write_text("another text")
    ended = suite("verify", str(tmp_path))
    assert ended.code == 1
    assert ended.out.startswith("entries/ada/entry.json: notes: ")
    assert ended.out.count("\n") == 1
    shown = json.loads(suite("verify", str(tmp_path), "--json").out)
    assert shown["records"] == 40
    assert [Fault(**each).line for each in shown["faults"]] == [ended.out.strip()]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nowhere"], "does not exist"),
        ([str(ROOT / "docs")], "holds no entry"),
        ([str(ROOT / "leaderboards"), "--trust-source"], "--replay N"),
        ([str(ROOT / "docs"), "--badge"], "neither a folder with entries/"),
    ],
)
def test_a_users_mistake_has_exit_code_2_and_one_line(suite, words, message):
    ended = suite("verify", *words)
    assert (ended.code, ended.out, ended.err.count("\n")) == (2, "", 1)
    assert message in ended.err


@pytest.mark.slow
def test_badges_are_written_next_to_the_entries_and_only_without_faults(suite, template, tmp_path):
    folder = copy_of(template, tmp_path)
    assert suite("verify", str(folder), "--badge").code == 0
    held = badges.by_record(badges.read(tmp_path))
    assert {badge.kind for badge in held.values()} == {"reported"}
    assert held.keys() == {made.hash for made in records(folder).values()}
    assert suite("verify", str(tmp_path)).code == 0
    assert "reported, 20" in suite("leaderboard", "--records", str(tmp_path), "--markdown").out
    (tmp_path / badges.NAME).unlink()
    (folder / "more.txt").write_text("")
    assert suite("verify", str(tmp_path), "--badge").code == 1
    assert not (tmp_path / badges.NAME).exists()


def in_this_process(entrants, executor, **_) -> Progress:
    """Runs a sweep's races here, which costs no process that imports everything again."""
    while (chosen := next_run(entrants, set())) is not None:
        index, rate, seed = chosen
        outcome = resume_newest(entrants[index].config(rate, seed), data_dir=None, device="cpu")
        entrants[index].scores[rate, seed] = score_of(outcome.record)
    return Progress()


@pytest.fixture
def tiny(monkeypatch, tmp_path):
    """Tiny runs in this process, as from a clean commit."""
    monkeypatch.setattr("suite.config.recipe._recipe_file", lambda task: RECIPE)
    monkeypatch.setattr("suite.sweeps.scheduler.carry_out", in_this_process)
    monkeypatch.setattr(provenance, "_git", lambda *words: "" if words[0] == "status" else "a" * 40)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.slow
def test_a_contributors_path_from_a_file_to_a_verified_entry_on_a_board(suite, tiny: Path):
    boards = tiny / "leaderboards"
    (boards / "entries").mkdir(parents=True)
    arguments = ("enter", EXAMPLE, "--task", "sotu", "--author", "ada", "--yes")
    ended = suite(*arguments, "--records", str(boards), "--json")
    assert ended.code == 0, ended.err
    shown = json.loads(ended.out)
    [row] = shown["boards"][0]["rows"]
    assert (row["mixer"], row["place"], len(row["seeds"])) == ("moving_average.py:MovingAverage", 1, 8)
    assert shown["entry"]["records"] >= 20
    assert "checks hold" in ended.err

    written = {path: path.read_bytes() for path in (boards / "entries" / "ada").rglob("*.json")}
    again = suite(*arguments)  # which repeats no run
    assert again.code == 0, again.err
    assert {path: path.read_bytes() for path in (boards / "entries" / "ada").rglob("*.json")} == written

    untrusted = suite("verify", str(boards), "--replay", "2")
    assert (untrusted.code, "0 replayed" in untrusted.err) == (0, True), untrusted
    assert "--trust-source" in untrusted.err
    verified = suite("verify", str(boards), "--replay", "2", "--trust-source", "--badge")
    assert verified.code == 0, verified
    assert "executing the mixer's file" in verified.err
    board = suite("leaderboard", "--records", str(boards), "--markdown").out
    assert "| 1 | moving\\_average.py:MovingAverage" in board or "| 1 | moving_average.py:MovingAverage" in board, board
    assert "replayed" in board


def test_a_mixer_that_breaks_the_contract_enters_nothing(suite, tiny: Path):
    file = tiny / "peeks.py"
    file.write_text(
        "from backbones.mixers.deconstructed.variants import NoMixing\n"
        "class Peeks(NoMixing):\n"
        "    def forward(self, x_BTD, context=None):\n"
        "        return x_BTD.flip(1)\n"
    )
    ended = suite("enter", f"{file}:Peeks", "--task", "sotu", "--yes")
    assert (ended.code, ended.out) == (1, "")
    assert "fails." in ended.err
    assert "shown by" in ended.err
    assert not (tiny / "draft").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--author", "Ada"), "--author 'Ada': up to 39"),
        (
            ("--author", "ada", "--output", "results"),
            "has its author's name; give 'results/ada'",
        ),
        (("--notes", "binary"), "cannot be read as text"),
        (("--notes", "long"), "has more than 16384 bytes"),
    ],
)
def test_what_no_entry_can_have_is_refused_before_the_race(suite, tiny: Path, words, message):
    (tiny / "binary").write_bytes(b"\xff\xfe")
    (tiny / "long").write_bytes(b"x" * 20_000)
    ended = suite("enter", "no-mixing", "--task", "sotu", "--yes", *words)
    assert (ended.code, ended.out) == (2, "")
    assert message in ended.err.splitlines()[-1]
    assert len(ended.err.splitlines()) == 1  # nothing was checked before
    assert not (tiny / "runs").exists()


def test_no_race_starts_where_files_of_the_suite_are_changed(suite, tiny: Path, monkeypatch):
    monkeypatch.setattr(provenance, "_git", lambda *words: " M suite/x.py" if words[0] == "status" else "a" * 40)
    ended = suite("enter", "no-mixing", "--task", "sotu", "--yes")
    assert ended.code == 2
    assert "commit or undo the changes first" in ended.err.splitlines()[-1]
    assert not (tiny / "runs").exists()


def test_a_mixer_that_imports_a_file_next_to_it_starts_no_race(suite, tiny: Path):
    (tiny / "helper.py").write_text("X = 1\n")
    (tiny / "mine.py").write_text(
        "from backbones.mixers.deconstructed.variants import NoMixing\nimport helper\nclass Mine(NoMixing): pass\n"
    )
    ended = suite("enter", "mine.py:Mine", "--task", "sotu", "--yes")
    assert ended.code == 2
    assert "imports 'helper' next to it" in ended.err.splitlines()[-1]


def test_no_race_starts_without_a_confirmation(suite, tiny: Path):
    ended = suite("enter", "no-mixing", "--task", "sotu")
    assert ended.code == 2
    assert "add --yes" in ended.err.splitlines()[-1]
    assert not (tiny / "runs").exists()

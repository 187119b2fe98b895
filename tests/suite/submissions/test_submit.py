"""`suite submit`: whole races become an entry that verifies; what cannot have a row is refused in one line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from suite.errors import UserError
from suite.records import record, runs_folder
from suite.records.schema import Record
from suite.submissions import entry
from suite.submissions.submit import submit
from suite.submissions.verify import verify
from tests.suite.submissions.made import MINE, SOURCE, run, whole_race

FEM = whole_race("fem")


def keep(home: Path, made: Record, mixer: str = "") -> Record:
    """Writes a run into the runs folder; `mixer`: its name with the path of a file."""
    folder = home / made.id
    folder.mkdir(parents=True)
    record.write(folder, made)
    config = {**made.config.canonical(), **({"mixer": mixer} if mixer else {})}
    content = {"config": config, "data_dir": None, "created": made.created, "identity": made.identity}
    (folder / runs_folder.CONFIG).write_text(json.dumps(content))
    return made


@pytest.fixture
def home(runs) -> Path:
    for made in FEM:
        keep(runs, made)
    return runs


def test_one_run_submits_its_whole_race_and_the_entry_verifies(home, tmp_path):
    notes = tmp_path / "n.txt"
    notes.write_text("Tuned as planned.\n")
    made = submit([FEM[3].id], author="ada", notes=notes, folder=tmp_path / "ada")
    assert (made.records, made.new, [race.runs for race in made.races]) == (20, 20, [20])
    found = verify(tmp_path / "ada")
    assert [fault.line for fault in found.faults] == []
    assert {each.hash for each in found.records.values()} == {each.hash for each in FEM}
    assert entry.read(tmp_path / "ada" / entry.NAME).races == made.races
    assert (tmp_path / "ada" / entry.NOTES).read_text() == notes.read_text()


def test_submitting_again_changes_nothing_and_keeps_the_notes(home, tmp_path):
    notes = tmp_path / "n.txt"
    notes.write_text("x")
    submit([FEM[0].id], author="ada", notes=notes, folder=tmp_path / "ada")
    before = {path: path.read_bytes() for path in (tmp_path / "ada").rglob("*.*")}
    again = submit([FEM[7].id], author="ada", folder=tmp_path / "ada")
    assert again.new == 0
    assert {path: path.read_bytes() for path in (tmp_path / "ada").rglob("*.*")} == before


def test_a_second_race_is_added_with_the_source_of_its_mixer(home, tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(SOURCE)
    mine = [keep(home, made, f"{file}:Mine") for made in whole_race(MINE, file)]
    submit([FEM[0].id], author="ada", folder=tmp_path / "ada")
    made = submit([mine[0].id], author="ada", folder=tmp_path / "ada")
    assert (made.records, made.new, len(made.races)) == (40, 20, 2)
    assert [path.read_text() for path in (tmp_path / "ada" / "sources").rglob("*.py")] == [SOURCE]
    assert [fault.line for fault in verify(tmp_path / "ada").faults] == []


def test_a_race_with_a_missing_run_is_refused_or_gets_no_rank(home, tmp_path):
    [gone] = [made for made in FEM if (made.config.train.lr, made.seed) == (2e-3, 6)]
    (home / gone.id / record.NAME).unlink()
    with pytest.raises(UserError, match=r"19 runs, not ended: runs are missing.*suite sweep.*--unfinished"):
        submit([FEM[0].id], author="ada", folder=tmp_path / "ada")
    assert not (tmp_path / "ada").exists()
    made = submit([FEM[0].id], author="ada", folder=tmp_path / "ada", unfinished=True)
    assert [(race.runs, race.chosen) for race in made.races] == [(19, None)]
    assert [fault.line for fault in verify(tmp_path / "ada").faults] == []


def test_folders_and_files_of_records_can_be_submitted(home, tmp_path):
    made = submit([str(home)], author="ada", folder=tmp_path / "ada")
    assert made.records == 20
    files = [str(home / each.id / record.NAME) for each in FEM]
    assert submit(files, author="ada", folder=tmp_path / "other" / "ada").records == 20


def test_a_mixer_file_that_changed_since_its_runs_is_refused(runs, tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(SOURCE)
    made = keep(runs, run(MINE, 2e-3, 0, file), f"{file}:Mine")
    file.write_text(SOURCE + "\n")
    with pytest.raises(UserError, match=r"has changed since run .*run it again"):
        submit([made.id], author="ada", folder=tmp_path / "ada", unfinished=True)
    file.unlink()
    with pytest.raises(UserError, match="does not exist"):
        submit([made.id], author="ada", folder=tmp_path / "ada", unfinished=True)


def test_a_mixer_that_imports_a_file_next_to_it_is_refused(runs, tmp_path):
    file, helper = tmp_path / "mine.py", tmp_path / "neighbour.py"
    helper.write_text("")
    file.write_text(f"def later():\n    import neighbour\n\n\n{SOURCE}")
    made = keep(runs, run(MINE, 2e-3, 1, file), f"{file}:Mine")
    with pytest.raises(UserError, match=r"imports 'neighbour'.*one file"):
        submit([made.id], author="ada", folder=tmp_path / "ada", unfinished=True)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"status": "interrupted"}, "is interrupted; only runs that have ended"),
        ({"code": FEM[0].code.model_copy(update={"git_dirty": True})}, "files of the suite were changed"),
    ],
)
def test_a_run_that_can_have_no_rank_is_refused(runs, tmp_path, change, message):
    made = FEM[0].model_copy(update=change)
    if made.status == "interrupted":
        nothing: dict[str, object] = {
            "metrics": {},
            "n_evaluated": {},
            "selection": None,
            "timing": None,
            "error": "stopped",
        }
        made = made.model_copy(update=nothing)
    keep(runs, made.sealed())
    with pytest.raises(UserError, match=message):
        submit([made.id], author="ada", folder=tmp_path / "ada", unfinished=True)


def test_two_runs_of_one_config_are_refused(home, tmp_path):
    files = [str(home / FEM[0].id / record.NAME)]
    copy = home / "copy"
    copy.mkdir()
    record.write(copy, FEM[0].model_copy(update={"id": "copy"}))
    with pytest.raises(UserError, match="have the same config"):
        submit([*files, str(copy / record.NAME)], author="ada", folder=tmp_path / "ada", unfinished=True)


@pytest.mark.parametrize("author", ["", "Ada", "a/b", "..", "-a", "a" * 40, "a b", "<b>"])
def test_names_of_authors_are_plain(home, tmp_path, author):
    with pytest.raises(UserError, match=r"--author .*: up to 39"):
        submit([FEM[0].id], author=author, folder=tmp_path / "x")


def test_notes_are_short_text(home, tmp_path):
    for name, content, message in (
        ("long", b"x" * 20_000, "has more than 16384 bytes"),
        ("binary", b"\xff\xfe", "cannot be read as text"),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UserError, match=message):
            submit([FEM[0].id], author="ada", notes=tmp_path / name, folder=tmp_path / "ada")
    assert not (tmp_path / "ada").exists()


def test_a_damaged_entry_is_not_added_to(home, tmp_path):
    submit([FEM[0].id], author="ada", folder=tmp_path / "ada")
    path = next((tmp_path / "ada" / "records").rglob("*.json"))
    path.write_text(path.read_text().replace('"top1":', '"top1": 0', 1))
    with pytest.raises(record.RecordError, match=path.name):
        submit([FEM[1].id], author="ada", folder=tmp_path / "ada")

"""Runs whose disk is full, or whose folder refuses the record, lose nothing in silence."""

from __future__ import annotations

from suite.records import record, runs_folder
from suite.records.schema import Record
from tests.suite.tiny import tiny_arguments
from tests.suite.training.run_helpers import largest_file


def test_a_disk_too_full_for_checkpoints_warns_once_and_the_run_finishes(suite, runs):
    with largest_file(60_000):
        ended = suite(*tiny_arguments("fashion-mnist"))
    [folder] = runs.iterdir()
    assert ended.code == 0, ended.err
    assert ended.err.count("warning:") == 1
    assert f"no checkpoint could be written to {folder}" in ended.err
    assert record.read(folder / record.NAME).status == "finished"
    assert not [path.name for path in folder.iterdir() if path.name.startswith(".") or "checkpoint" in path.name]


def test_a_record_that_its_folder_refuses_is_written_elsewhere_and_found(suite, monkeypatch, tmp_path):
    real = record.write

    def write(folder, made):
        if folder.is_relative_to(runs_folder.home()):
            raise OSError(28, "No space left on device")
        return real(folder, made)

    monkeypatch.setattr(record, "write", write)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    ended = suite(*tiny_arguments("fashion-mnist", "softmax", "steps=1"), "--json")
    [spare] = tmp_path.glob("mixer-suite-*/record.json")
    assert ended.code == 0
    assert f"No space left on device); it is in {spare.parent}" in ended.err
    assert record.read(spare) == Record.model_validate_json(ended.out)


def test_a_record_that_no_disk_takes_is_printed_completely_on_stderr(suite, runs):
    with largest_file(5_000):
        ended = suite(
            *tiny_arguments("fashion-mnist", "softmax", "steps=40", "evals=1")
        )  # the trace makes the record long enough
    assert ended.code == 0, ended.err
    [line] = [line for line in ended.err.splitlines() if "written nowhere" in line]
    printed = Record.model_validate_json(line.split("here it is: ")[1])
    assert printed.status == "finished"
    assert printed.hash == printed.sealed().hash

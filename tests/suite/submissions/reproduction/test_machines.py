"""Runs count as reproduced on another machine only: the machine of the records is refused, whatever it is called."""

from __future__ import annotations

import platform
import socket

import pytest

from suite.records import provenance
from suite.records.schema import Hardware
from suite.submissions.machines import made_here
from suite.submissions.replay import CPU
from tests.suite.submissions.made import Content, forge, path_of, records
from tests.suite.tiny import made_record

HERE = provenance.hardware(CPU)


def of_machine(**changes: object) -> dict[str, object]:
    return HERE.model_copy(update=changes).model_dump(mode="json")


def claim(folder, machine: dict[str, object]) -> None:
    """Writes the machine into all records, with everything computed again."""

    def change(content: Content) -> None:
        content["hardware"] = machine

    paths = [folder / name for name in records(folder)]
    for path in paths:
        forge(folder, change, path, list_again=path == paths[-1])


@pytest.mark.parametrize(
    "machine",
    [
        of_machine(),
        of_machine(memory_bytes=round(1.01 * HERE.memory_bytes)),  # another kernel keeps more of it for itself
        of_machine(threads=7, platform="another"),
    ],
    ids=["the same", "after an update", "with another number of threads"],
)
def test_the_machine_of_the_records_is_refused_under_any_name(suite, entry_folder, trained, monkeypatch, machine):
    claim(entry_folder, machine)
    for module, name in ((socket, "gethostname"), (platform, "node")):
        monkeypatch.setattr(module, name, lambda: "another-machine")
    ended = suite("verify", str(entry_folder), "--reproduce", "3", "--mixer", "fem", "--badge")
    assert (ended.code, ended.out, ended.err.count("\n"), trained) == (2, "", 1, [])
    assert "its runs were made on this machine or one like it" in ended.err


def test_a_run_that_is_in_the_runs_folder_here_was_made_here_whatever_it_claims(suite, entry_folder, trained, runs):
    claim(entry_folder, of_machine(processor="another", cores=64))
    for seed in range(8):
        folder = runs / path_of(entry_folder, seed=seed).stem
        folder.mkdir(parents=True)
        (folder / "config.json").write_text("{}")
    ended = suite("verify", str(entry_folder), "--reproduce", "3", "--mixer", "fem")
    assert (ended.code, ended.out, ended.err.count("\n"), trained) == (2, "", 1, [])
    assert "is in the runs folder of this machine" in ended.err


def test_only_the_seeds_of_another_machine_are_trained(suite, entry_folder, trained):
    def change(content: Content) -> None:
        content["hardware"] = of_machine()

    for seed in range(5):
        forge(entry_folder, change, path_of(entry_folder, seed=seed), list_again=seed == 4)
    ended = suite("verify", str(entry_folder), "--reproduce", "3", "--mixer", "fem")
    assert ended.code == 0, ended
    assert {config.seed for config in trained} == {5, 6, 7}


@pytest.mark.parametrize(
    "changes", [{"processor": "another"}, {"cores": 64}, {"memory_bytes": HERE.memory_bytes // 2}], ids=str
)
def test_another_processor_number_of_cores_or_memory_is_another_machine(changes):
    there = Hardware.model_validate(of_machine(**changes))
    assert made_here(made_record().model_copy(update={"hardware": there}), HERE, ()) == ""

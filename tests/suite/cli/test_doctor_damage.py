"""`suite doctor` has exit code 1 for each kind of damage, and 0 without any."""

from __future__ import annotations

import json
import shutil

import pytest

from suite.records import provenance, record
from tests.suite.tiny import made_record


@pytest.fixture
def healthy(runs, monkeypatch):
    """A runs folder with one record, and a store that can be reached."""
    made = made_record()
    (runs / made.id).mkdir(parents=True)
    monkeypatch.setattr("suite.tracking.publishing.close_dead_runs", lambda home: [])
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(2**50, 0, 2**50))
    return record.write(runs / made.id, made)


def failing(suite):
    ended = suite("doctor", "--json")
    found = json.loads(ended.out)
    return ended.code, [check["name"] for check in found if not check["ok"]]


def test_nothing_is_wrong_with_a_whole_installation(suite, healthy):
    assert failing(suite) == (0, [])


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_text("{"),
        lambda path: path.write_bytes(path.read_bytes()[:-100]),
        lambda path: path.write_text(path.read_text().replace('"seed": 0', '"seed": 1')),
        lambda path: path.write_text(path.read_text().replace("0.5", "0.6")),
        lambda path: path.write_bytes(b""),
    ],
)
def test_a_damaged_record_has_exit_code_1(suite, healthy, damage):
    whole = healthy.read_bytes()
    damage(healthy)
    assert healthy.read_bytes() != whole
    assert failing(suite) == (1, ["records"])


def test_a_full_disk_has_exit_code_1(suite, healthy, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(2**40, 2**40, 2**30))
    assert failing(suite) == (1, ["runs folder"])


def test_a_runs_folder_that_cannot_be_used_has_exit_code_1(suite, healthy, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SUITE_HOME", str(tmp_path / "file"))
    code, names = failing(suite)
    assert code == 1
    assert "runs folder" in names


def test_a_store_that_does_not_answer_has_exit_code_1(suite, healthy, monkeypatch):
    def refuse(home):
        raise ConnectionError("no answer")

    monkeypatch.setattr("suite.tracking.publishing.close_dead_runs", refuse)
    assert failing(suite) == (1, ["tracking store"])


def test_a_missing_package_has_exit_code_1(suite, healthy, monkeypatch):
    monkeypatch.setattr(provenance, "packages", lambda: {"torch": "not installed"})
    assert failing(suite) == (1, ["packages"])

"""A record that contradicts itself is named by the doctor, and costs no other record its board."""

from __future__ import annotations

import json

import pytest

from suite.boards.board import boards
from suite.boards.markdown import markdown
from suite.cli.commands import doctor
from suite.records import record
from suite.records.collection import read_all
from tests.suite.records import edited
from tests.suite.records.faults import is_free, name_of, names
from tests.suite.tiny import made_record

MALFORMED = {
    "an empty certificate": (("certificate",), {}, "certificate"),
    "no primary metric": (("metrics",), {"test": {}}, "metrics"),
    "no training options": (("config", "train"), {}, "config.train"),
    "another mixer's name": (("mixer",), "softmax", "mixer"),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_a_malformed_record_costs_its_neighbour_nothing(suite, runs, monkeypatch, sound, name):
    path, value, field = MALFORMED[name]
    bad = edited.write(runs / "bad", edited.changed(sound, path, value))
    edited.write(runs / "good", edited.plain(made_record("fem")))
    shown = suite("leaderboard", "--json")
    assert shown.code == 0
    assert [row["mixer"] for board in json.loads(shown.out) for row in board["rows"]] == ["fem"]
    assert "1 record(s) left out" in " ".join(suite("leaderboard").out.split())
    monkeypatch.setattr(doctor, "_check_store", lambda: doctor.Check("tracking store", True, ""))
    ended = suite("doctor", "--json")
    [check] = [check for check in json.loads(ended.out) if check["name"] == "records"]
    assert (ended.code, check["ok"]) == (1, False)
    assert f"{bad}: {field}" in check["message"]
    assert "good" not in check["message"]


def test_every_edited_record_is_named_by_the_doctor_and_costs_no_board(suite, runs, monkeypatch, sound):
    refused = {name_of(path): path for path in edited.leaves(sound) if not is_free(path) and path != ("hash",)}
    for name, path in refused.items():
        edited.write(runs / name, edited.changed(sound, path, edited.another(edited.at(sound, path))))
    edited.write(runs / "good", edited.plain(made_record("fem")))
    found = read_all()
    assert len(found.refused) == len(refused) > 80
    [board] = boards(found.records, found.refused)
    assert [row.mixer for row in board.rows] == ["fem"]
    assert board.refused == len(refused) - 1  # the one that claims another task is counted there
    assert f"{board.refused} record(s) left out" in markdown(board)
    shown = suite("leaderboard", "--json")
    assert shown.code == 0
    assert [row["runs"] for board in json.loads(shown.out) for row in board["rows"]] == [["fem-0"]]
    monkeypatch.setattr(doctor, "_check_store", lambda: doctor.Check("tracking store", True, ""))
    ended = suite("doctor", "--json")
    [check] = [check for check in json.loads(ended.out) if check["name"] == "records"]
    assert ended.code == 1
    for name, path in refused.items():
        [fault] = [part for part in check["message"].split("\n") if part.startswith(f"{runs / name / record.NAME}: ")]
        assert names(fault.partition(": ")[2], path)

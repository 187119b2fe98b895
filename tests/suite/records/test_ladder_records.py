"""Records of runs on a ladder of difficulties: read by every command, and refused where they contradict themselves."""

from __future__ import annotations

import json

import pytest

from suite.cli.commands import doctor
from suite.models.resolve import resolve
from suite.records import record
from suite.records.collection import read_all
from tests.suite.records import edited
from tests.suite.tiny import SHAPE, made_record

LADDERS = {
    "mqar": ("length=32", "vocab=32", "noise=zero", "pairs=4", "ladder=16,32"),
    "mad-in-context": ("length=32", "vocab=16", "ladder=8,16"),
}
SIZES = ("train_examples=64", "valid_examples=16", "test_examples=16")


@pytest.fixture
def runs(tmp_path, monkeypatch):
    monkeypatch.setenv("SUITE_HOME", str(tmp_path))
    monkeypatch.setattr(doctor, "_check_store", lambda: doctor.Check("tracking store", True, ""))
    return tmp_path


@pytest.mark.parametrize("task", LADDERS)
def test_a_run_on_a_ladder_is_accepted_by_doctor_and_leaderboard(suite, runs, monkeypatch, task):
    monkeypatch.setenv("SUITE_TRACKING", "off")
    options = (*SHAPE, *LADDERS[task], *SIZES, "steps=4", "evals=2")
    ran = suite(
        "run", "--task", task, "--mixer", "softmax", "--scale", "board", "--device", "cpu", "--unmatched", "--json",
        *[part for option in options for part in ("--set", option)],
    )  # fmt: skip
    assert ran.code == 0, ran.err
    [check] = [check for check in json.loads(suite("doctor", "--json").out) if check["name"] == "records"]
    assert check["ok"], check["message"]
    [made] = read_all().records
    for values in made.metrics.values():
        rungs = [value for name, value in values.items() if name.startswith("accuracy_")]
        assert len(rungs) == 2
        assert values["accuracy"] == sum(rungs) / 2
    [board] = json.loads(suite("leaderboard", "--json").out)
    assert [row["mixer"] for row in board["rows"]] == ["softmax"]


@pytest.mark.parametrize("split", ["valid", "valid_last", "test"])
def test_an_accuracy_that_is_not_the_mean_over_the_rungs_is_refused(split):
    made = made_record(task="mqar", sets=(*LADDERS["mqar"], *SIZES))
    sound = edited.plain(made)
    record.parse(json.dumps(sound))
    forged = edited.changed(sound, ("metrics", split, "accuracy_16"), 0.75)
    forged = edited.plain(made.model_copy(update={"metrics": forged["metrics"]}))
    with pytest.raises(record.RecordError, match=rf"metrics.{split}.accuracy: 0.5 is recorded, 0.625 follows"):
        record.parse(json.dumps(forged))


@pytest.mark.parametrize("task", LADDERS)
def test_a_config_without_a_ladder_hashes_as_before_there_were_ladders(task):
    made = resolve(task=task, mixer="softmax", scale="quick")
    assert made.canonical()["data"]["ladder"] == ""
    assert "ladder" not in json.dumps(made.recorded())
    with_ladder = resolve(task=task, mixer="softmax", scale="quick", sets=[*LADDERS[task], *SIZES])
    without = resolve(task=task, mixer="softmax", scale="quick", sets=[*LADDERS[task][:-1], *SIZES])
    assert with_ladder.identity != without.identity
    assert with_ladder.group != without.group


@pytest.mark.parametrize("task", LADDERS)
def test_a_recipes_ladder_is_turned_off_by_an_empty_one(task):
    sets = [*LADDERS[task][:-1], *SIZES, "ladder="]
    made = resolve(task=task, mixer="softmax", scale="board", sets=sets)
    assert made.canonical()["data"]["ladder"] == ""

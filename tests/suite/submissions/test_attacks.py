"""Each attack on a sound entry is found by the check that docs/security.md names; some only by reproducing runs."""

from __future__ import annotations

import re

import pytest

from suite.submissions.verify import verify
from tests.suite.submissions.attacks import ATTACKS, Attack
from tests.suite.submissions.made import copy_of, forge, path_of
from tests.test_docs import ROOT

#: Those of `test_replay.py`, which train.
TRAINED = {
    "a learning rate other than the recorded one": "replay",
    "the run of another seed": "replay",
    "the run of another mixer": "replay",
    "invented losses": "replay",
    "a source exchanged after the run, with every hash": "replay",
}


def test_the_entry_is_sound(template):
    found = verify(template.parents[1])
    assert [fault.line for fault in found.faults] == []
    assert len(found.records) == 40
    assert len(found.sources) == 1


@pytest.mark.slow
@pytest.mark.parametrize("made", ATTACKS, ids=[each.name for each in ATTACKS])
def test_an_attack_is_found_by_the_named_check(template, tmp_path, made: Attack):
    folder = copy_of(template, tmp_path)
    made.forge(folder)
    faults = verify(tmp_path).faults
    if made.answer in ("reproduced", "replay"):  # those of replay are also in test_replay.py
        assert [fault.line for fault in faults] == []
    else:
        assert any(made.words in fault.message and fault.check == made.answer for fault in faults), [
            fault.line for fault in faults
        ]
    assert all("\n" not in fault.line and "\x1b" not in fault.line for fault in faults)


def test_an_edit_without_new_hashes_is_found_too(template, tmp_path):
    folder = copy_of(template, tmp_path)
    for path in sorted((folder / "records").rglob("*.json"))[:2]:
        path.write_text(path.read_text().replace('"seed":', '"seed": ', 1))  # the same JSON value: no fault
    assert [fault.line for fault in verify(tmp_path).faults] == []


def test_single_runs_at_rates_that_a_race_can_reach_are_no_fault(template, tmp_path):
    folder = copy_of(template, tmp_path)
    for seed in range(1, 8):
        path_of(folder, seed=seed).unlink(missing_ok=True)
    forge(folder, lambda content: content["config"]["train"].update(lr=0.054), path_of(folder, seed=0))
    of_rate = [fault.line for fault in verify(tmp_path).faults if "no rate of the race" in fault.line]
    assert of_rate == []


def test_the_table_of_attacks_in_the_documentation_is_this_one():
    text = (ROOT / "docs" / "security.md").read_text("utf-8")
    rows = re.findall(r"^\| ([^|]+?) \| (recount|ranges|replay|reproduced) \|$", text, re.M)
    expected = {each.name: each.answer for each in ATTACKS} | TRAINED
    assert len(rows) == len(dict(rows)) >= 30
    assert dict(rows) == expected


def test_names_of_attacks_differ():
    assert len({each.name for each in ATTACKS}) == len(ATTACKS)

"""Records say whether the mixer's contract was checked, and boards show it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from backbones.contract.run import VERSION
from backbones.mixers import registry
from suite.boards.columns.table import COLUMNS
from suite.boards.rows import Row
from suite.records import contracts
from suite.records.record import read
from suite.records.schema import Contract, Record
from tests.suite.cli.user_processes import EXAMPLE
from tests.suite.tiny import made_record, tiny_arguments

HELD, BROKEN = Contract(checked=True, version=VERSION), Contract(checked=False, version=VERSION)
CONTRACT = next(column for column in COLUMNS if column.name == "contract")


def test_an_outcome_is_of_one_code_of_one_mixer(runs):
    contracts.keep("a/mine.py:Mine", "mine.py@1", HELD, whole=False)
    contracts.keep("other.py:Mine", "other.py@2", BROKEN, whole=False)
    assert contracts.known("b/mine.py:Mine", "mine.py@1") == HELD
    assert contracts.known("mine.py:Mine", "mine.py@3") is None
    assert contracts.known("mine.py:Other", "mine.py@1") is None
    assert contracts.known("other.py:Mine", "other.py@2") == BROKEN
    contracts.keep("mine.py:Mine", "mine.py@1", BROKEN, whole=False)
    assert contracts.known("mine.py:Mine", "mine.py@1") == BROKEN


def test_a_failure_stays_until_the_whole_contract_holds(runs):
    contracts.keep("mine.py:Mine", "mine.py@1", BROKEN, whole=True)
    contracts.keep("mine.py:Mine", "mine.py@1", HELD, whole=False)
    assert contracts.known("mine.py:Mine", "mine.py@1") == BROKEN
    contracts.keep("mine.py:Mine", "mine.py@1", HELD, whole=True)
    assert contracts.known("mine.py:Mine", "mine.py@1") == HELD


@pytest.mark.parametrize("origin", ["built-in", "other-mixers 1.2", "unknown"])
def test_nothing_is_kept_of_code_that_has_no_hash(runs, origin):
    contracts.keep("mine", origin, HELD, whole=True)
    assert contracts.known("mine", origin) is None
    assert not (runs / contracts.NAME).exists()


@pytest.mark.parametrize("damage", ["", "[1]", "{", '{"Mine of mine.py@1": {"checked": "perhaps"}}', "\x00"])
def test_a_damaged_file_of_outcomes_knows_nothing_and_is_replaced(runs, damage):
    runs.mkdir(parents=True, exist_ok=True)
    (runs / contracts.NAME).write_text(damage)
    assert contracts.known("mine.py:Mine", "mine.py@1") is None
    contracts.keep("mine.py:Mine", "mine.py@1", HELD, whole=False)
    assert contracts.known("mine.py:Mine", "mine.py@1") == HELD


def test_the_latest_outcomes_are_kept(runs, monkeypatch):
    monkeypatch.setattr(contracts, "MOST", 3)
    for number in range(5):
        contracts.keep("mine.py:Mine", f"mine.py@{number}", HELD, whole=False)
    assert [contracts.known("mine.py:Mine", f"mine.py@{number}") is not None for number in range(5)] == [
        *(False, False),
        *(True, True, True),
    ]


def test_a_folder_that_cannot_be_written_costs_nothing_but_the_outcome(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SUITE_HOME", str(tmp_path / "file" / "runs"))
    contracts.keep("mine.py:Mine", "mine.py@1", HELD, whole=False)
    assert contracts.known("mine.py:Mine", "mine.py@1") is None


def _shown(*outcomes: Contract | None, origin: str = "mine.py@1") -> object:
    base = made_record("no-mixing")
    config = base.config.model_copy(update={"mixer_origin": origin})
    made: tuple[Record, ...] = tuple(
        base.model_copy(update={"config": config, "contract": outcome}) for outcome in outcomes
    )
    return CONTRACT.value(Row("mine", "mine", made, 0.5))


def test_a_board_shows_what_all_runs_of_a_row_say():
    assert _shown(HELD, HELD) is True
    assert _shown(HELD, None) is None
    assert _shown(HELD, BROKEN, None) is False
    assert _shown(None, origin="built-in") is True  # the suite's tests check its own mixers


@pytest.mark.slow
def test_a_run_after_a_check_of_the_same_file_records_it(suite, runs, tmp_path: Path):
    file = tmp_path / "mine.py"
    shutil.copy(EXAMPLE, file)
    mixer = f"{file}:MovingAverage"

    def recorded() -> Contract | None:
        made = json.loads(suite(*tiny_arguments("sotu", mixer, "steps=1", "dim=64"), "--json", "--force").out)
        return read(runs / made["id"] / "record.json").contract

    assert recorded() is None
    assert suite("check", mixer).code == 0
    assert recorded() == HELD
    file.write_text(file.read_text() + "\n# changed\n")
    assert recorded() is None
    assert registry.origin(mixer).startswith("mine.py@")

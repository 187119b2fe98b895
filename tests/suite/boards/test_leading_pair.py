"""The leading pair of a board over seeds and test units."""

from __future__ import annotations

import numpy as np
import pytest

from suite.boards.board import Board, boards
from suite.boards.markdown import markdown
from suite.boards.pair import leading, pairs
from suite.boards.plain import plain
from suite.records import record
from suite.records.schema import Record, TestUnits
from tests.suite.records import edited
from tests.suite.tiny import made_record


def run(mixer: str, base: float, seed: int, *, units: bool = True) -> Record:
    """A run whose accuracy differs between ten groups of images, in each mixer in another way."""
    of_unit = np.random.default_rng(len(mixer)).normal(0, 0.03, 10)
    correct = np.round(200 * (base + of_unit) + np.random.default_rng(seed).normal(0, 1, 10))
    made = made_record(mixer, float(correct.sum() / 2000), seed=seed, name=f"{mixer}-{seed}")
    held = TestUnits(word="images", sums=correct.tolist(), counts=[200.0] * 10)
    return made.model_copy(update={"test_units": held if units else None})


def board(*, units: bool = True) -> Board:
    rows = {"softmax": 0.7, "fem": 0.72, "no-mixing": 0.4}
    [found] = boards(
        [run(mixer, base, seed, units=units or seed > 0) for mixer, base in rows.items() for seed in (0, 1, 2)]
    )
    return found


def test_the_note_gives_the_interval_over_seeds_and_that_over_seeds_and_images():
    found = board()
    pair = leading(found)
    assert pair is not None
    assert (pair.one.mixer, pair.other.mixer, pair.units) == ("fem", "softmax", "images")
    assert pair.over_units is not None
    assert pair.over_units.error > 1.5 * pair.difference.error
    low, high = (f"{100 * end:+.2f}" for end in pair.over_units.interval())
    assert "fem minus softmax: +" in markdown(found)
    assert f"over seeds; {low} to {high} over seeds and images)" in markdown(found)
    assert plain(found)["leading"]["over_units"]["low"] == pytest.approx(pair.over_units.interval()[0])
    [compared] = pairs([found], "softmax", "fem")
    assert compared.over_units is not None
    assert compared.over_units.interval()[0] == pytest.approx(-pair.over_units.interval()[1])


def test_a_record_without_units_leaves_the_note_and_the_json_as_they_were():
    found = board(units=False)
    assert "leading" not in plain(found)
    assert "over seeds" not in markdown(found)
    pair = leading(found)
    assert pair is not None
    assert (pair.units, pair.over_units) == (None, None)


def test_a_record_keeps_its_units_and_one_without_them_has_no_such_field(tmp_path):
    made = run("fem", 0.7, 0)
    assert record.read(record.write(tmp_path, made)).test_units == made.test_units
    assert "test_units" not in edited.plain(run("fem", 0.7, 0, units=False))

"""Badges: a record's strongest one, a row's, their column, and that only the folder of the boards gives them."""

from __future__ import annotations

import json

import pytest

from suite.boards.board import boards
from suite.boards.columns.table import table_columns
from suite.boards.markdown import markdown
from suite.boards.plain import plain
from suite.errors import UserError
from suite.records import badges
from suite.records.badges import Badges, Checked
from tests.suite.tiny import made_record

RECORDS = tuple(made_record(mixer, seed=seed).sealed() for mixer in ("softmax", "fem") for seed in (0, 1))
HASHES = tuple(made.hash for made in RECORDS)


def checked(kind: badges.Kind, *records: str, day: str = "2026-01-02") -> Checked:
    return Checked(badge=kind, day=day, machine="AMD EPYC, 2 cores", records=records)


def test_the_strongest_and_then_the_latest_badge_counts():
    held = badges.by_record(
        Badges(
            checked=(
                checked("replayed", HASHES[0]),
                checked("reported", *HASHES, day="2026-03-01"),
                checked("reported", HASHES[1], day="2026-02-01"),
            )
        )
    )
    assert held[HASHES[0]].kind == "replayed"
    assert (held[HASHES[1]].kind, held[HASHES[1]].day) == ("reported", "2026-03-01")


def test_a_row_has_a_badge_only_where_all_its_records_have_one():
    held = badges.by_record(Badges(checked=(checked("reported", *HASHES[:3]), checked("replayed", HASHES[0]))))
    found = badges.of_row(held, HASHES[:2])
    assert found is not None
    assert (found.badge.kind, found.count, found.records) == ("replayed", 1, 2)
    assert badges.of_row(held, HASHES[2:]) is None


def test_the_column_is_shown_only_where_a_row_has_a_badge():
    [without] = boards(RECORDS)
    assert "badge" not in [column.name for column in table_columns(without)]
    held = badges.by_record(Badges(checked=(checked("reported", *HASHES[:2]), checked("replayed", HASHES[0]))))
    [shown] = boards(RECORDS, badges=held)
    assert "badge" in [column.name for column in table_columns(shown)]
    assert "replayed 1 of 2 runs, 2026-01-02, AMD EPYC, 2 cores" in markdown(shown)
    by_mixer = {row["mixer"]: row["badge"] for row in plain(shown)["rows"]}
    assert by_mixer["fem"] is None
    assert by_mixer["softmax"] == {
        "badge": "replayed", "runs": 1, "of": 2, "day": "2026-01-02", "machine": "AMD EPYC, 2 cores"
    }  # fmt: skip


def test_a_later_check_replaces_the_same_badge_of_a_record(tmp_path):
    badges.add(tmp_path, [checked("reported", *HASHES[:2])])
    badges.add(tmp_path, [checked("reported", HASHES[0], day="2026-05-05"), checked("replayed")])
    document = badges.read(tmp_path)
    assert [(each.badge, each.records, each.day) for each in document.checked] == [
        ("reported", (HASHES[1],), "2026-01-02"),
        ("reported", (HASHES[0],), "2026-05-05"),
    ]


@pytest.mark.parametrize(
    "change",
    [
        {"schema": "mixer-suite/badges/9"},
        {"stars": 5},
        {"checked": [{"badge": "perfect", "day": "2026-01-01", "machine": "m", "records": []}]},
        {"checked": [{"badge": "replayed", "day": "2026-13-01", "machine": "m", "records": []}]},
        {"checked": [{"badge": "replayed", "day": "2026-01-01", "machine": "\x1b[2J", "records": []}]},
    ],
)
def test_a_damaged_file_is_one_line(tmp_path, change):
    (tmp_path / badges.NAME).write_text(json.dumps({"schema": "mixer-suite/badges/1", "checked": [], **change}))
    with pytest.raises(UserError, match=r"badges\.json: ") as caught:
        badges.read(tmp_path)
    assert "\n" not in str(caught.value)

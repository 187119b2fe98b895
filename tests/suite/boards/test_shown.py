"""A board that was shown before is shown without reading its records again; whatever changed has them all read."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from suite.cli.commands.boards import shown
from suite.cli.output import out
from suite.records import badges, record
from tests.suite.tiny import made_record

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("SUITE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "boards"


@pytest.fixture
def records(runs, monkeypatch) -> list[Path]:
    """Files of four records."""
    found = []
    for number, mixer in enumerate(("softmax", "softmax", "fem", "fem")):
        made = made_record(mixer, 0.5 + number / 100, seed=number % 2, name=f"made-{number}")
        (runs / made.id).mkdir(parents=True)
        found.append(record.write(runs / made.id, made))
    return found


@pytest.fixture
def reads(monkeypatch) -> list[Path]:
    """Every record that was read."""
    seen, read = list[Path](), record.read

    def watched(path):
        seen.append(path)
        return read(path)

    monkeypatch.setattr(record, "read", watched)
    return seen


FORMS = (("--json",), (), ("--markdown",), ("--csv",), ("--latex",))


@pytest.mark.parametrize("options", FORMS)
def test_a_board_is_shown_again_without_reading_a_record(suite, records, reads, options):
    first = suite("leaderboard", *options)
    assert first.code == 0
    assert len(reads) == 4
    assert suite("leaderboard", *options) == first
    assert len(reads) == 4


def test_two_mixers_are_compared_again_without_reading_a_record(suite, records, reads):
    first = suite("compare", "fem", "softmax", "--json")
    assert first.code == 0
    assert suite("compare", "fem", "softmax", "--json") == first
    assert suite("compare", "fem", "nothing").code == suite("compare", "fem", "nothing").code == 2
    assert len(reads) == 12


def test_a_table_is_kept_for_the_width_it_was_made_for(suite, records, monkeypatch):
    monkeypatch.setattr(out, "width", 160)
    wide = suite("leaderboard").out
    monkeypatch.setattr(out, "width", 70)
    narrow = suite("leaderboard").out
    widths = [max(len(line) for line in text.splitlines() if line[0:1] in "┏┃") for text in (wide, narrow)]
    assert widths[1] <= 70 < widths[0]


@pytest.mark.parametrize("resealed", [False, True])
def test_a_record_that_is_edited_after_it_was_shown_is_refused(suite, records, reads, resealed):
    good = json.loads(suite("leaderboard", "--json").out)
    content = json.loads(records[3].read_text())
    content["certificate" if resealed else "metrics"]["parameters" if resealed else "test"] = (
        1 if resealed else {**content["metrics"]["test"], "top1": 0.99}
    )
    if resealed:  # its hash fits: the recount must find it
        from suite.config.identity import digest

        content["hash"] = digest({name: value for name, value in content.items() if name != "hash"})
    records[3].write_text(json.dumps(content))
    ended = suite("leaderboard", "--json")
    assert "1 record(s) left out" in ended.err
    [board] = json.loads(ended.out)
    assert board["refused"] == 1
    assert good[0]["refused"] == 0
    assert suite("leaderboard", "--json") == ended  # the warning too
    assert len(reads) == 8


def test_a_new_record_and_a_removed_one_change_the_board(suite, records, runs):
    assert "gla" not in suite("leaderboard").out
    made = made_record("gla", 0.7, name="made-gla")
    (runs / made.id).mkdir()
    record.write(runs / made.id, made)
    assert "gla" in suite("leaderboard").out
    shutil.rmtree(runs / made.id)
    assert "gla" not in suite("leaderboard").out


def test_other_code_reads_the_records_again(suite, records, reads, monkeypatch):
    suite("leaderboard", "--json")
    monkeypatch.setattr(shown, "code", lambda: "other code")
    suite("leaderboard", "--json")
    assert len(reads) == 8


def test_a_damaged_or_edited_answer_has_the_records_read_again(suite, records, reads, cache):
    first = suite("leaderboard", "--json")
    for number, damage in enumerate((b"", b"{}", b"edited")):
        [path] = cache.glob("*.json")
        held = path.read_bytes()
        path.write_bytes(held.replace(b"softmax", b"softmix") if damage == b"edited" else damage)
        assert suite("leaderboard", "--json") == first
        assert len(reads) == 8 + 4 * number


def test_badges_and_files_of_other_entries_are_part_of_what_boards_follow_from(tmp_path, suite):
    folder = tmp_path / "published" / "records"
    folder.mkdir(parents=True)
    made = made_record("fem", 0.5).sealed()
    (folder / "one.json").write_text(json.dumps({**made.content(), "hash": made.hash}))
    root = str(folder.parent)
    before = json.loads(suite("leaderboard", "--json", "--records", root).out)
    badges.add(
        folder.parent, [badges.Checked(badge="replayed", day="2026-01-01", machine="here", records=(made.hash,))]
    )
    after = json.loads(suite("leaderboard", "--json", "--records", root).out)
    assert before != after
    (folder / "two.json").symlink_to(folder / "one.json")
    (folder / "broken.json").symlink_to(folder / "nothing.json")
    assert len(shown.files(folder.parent)) == 4


@pytest.mark.slow
@pytest.mark.parametrize("words", [("leaderboard", *form) for form in FORMS] + [("compare", "fem", "softmax")])
def test_published_boards_are_the_same_with_and_without_kept_answers(suite, words, cache):
    """Byte for byte, in what is printed on both streams."""
    folder = str(ROOT / "leaderboards")
    first = suite(*words, "--records", folder)
    assert first.out
    assert suite(*words, "--records", folder) == first
    shutil.rmtree(cache)
    assert suite(*words, "--records", folder) == first

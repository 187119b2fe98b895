"""Kept answers are used only where all that they follow from is unchanged and nobody else could have written them."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from kernels.cpu.process import trusted
from suite import kept


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch) -> Path:
    """Of the answers of the kind `things`."""
    monkeypatch.setenv("SUITE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "things"


class Asked:
    """Counts how often the answer was found, which is then that number."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, question: str = "how many", state: str = "as it is") -> int:
        found: int = kept.kept("things", question, lambda: state, self.find)["count"]
        return found

    def find(self) -> dict[str, int]:
        self.count += 1
        return {"count": self.count}


def test_an_answer_is_found_once_for_each_question_and_state():
    asked = Asked()
    assert [asked(), asked()] == [1, 1]
    assert [asked("another"), asked("another"), asked()] == [2, 2, 1]
    assert [asked(state="changed"), asked(state="changed")] == [3, 3]
    assert asked() == 4  # the older state's answer was replaced


def edited(path: Path) -> None:
    path.write_text(path.read_text().replace('"count": 1', '"count": 7'))


def edited_and_hashed(path: Path) -> None:
    """For another state: someone kept an answer of other files under this name."""
    held = json.loads(path.read_text())
    trusted.store(path, json.dumps({**held, "follows_from": "0" * 64, "answer": {"count": 7}}))


def linked(path: Path) -> None:
    path.rename(path.with_suffix(".moved"))
    path.symlink_to(path.with_suffix(".moved"))


DAMAGE: dict[str, Callable[[Path], object]] = {
    "edited by hand": edited,
    "of another state": edited_and_hashed,
    "truncated": lambda path: path.write_bytes(path.read_bytes()[:-3]),
    "empty": lambda path: path.write_bytes(b""),
    "without its hash": lambda path: path.with_suffix(".sha256").unlink(),
    "writable by others": lambda path: path.chmod(0o666),
    "a link": linked,
    "no object": lambda path: trusted.store(path, "[]"),
    "no answer": lambda path: trusted.store(path, "{}"),
    "no JSON": lambda path: trusted.store(path, "{"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_or_edited_answer_is_found_again(folder, damage):
    asked = Asked()
    asked()
    [path] = folder.glob("*.json")
    DAMAGE[damage](path)
    assert asked() == 2


@pytest.mark.parametrize("whose", ["writable by others", "of another user"])
def test_answers_in_a_folder_that_others_control_are_not_used(folder, monkeypatch, tmp_path, whose):
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path / "temporary"))
    asked = Asked()
    asked()
    if whose == "writable by others":
        folder.chmod(0o777)
    else:
        owner = folder.lstat().st_uid
        monkeypatch.setattr("kernels.cpu.process.trusted.os.getuid", lambda: owner + 1)
        monkeypatch.setattr("kernels.cpu.process.trusted._ROOT", -1)
    assert asked() == 2


def test_where_no_folder_can_be_written_the_answer_is_found_each_time(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SUITE_CACHE", str(tmp_path / "file" / "below"))
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path / "file"))
    asked = Asked()
    assert [asked(), asked()] == [1, 2]


def test_an_answer_whose_files_changed_while_it_was_found_is_not_kept(folder):
    states = iter(["before", "after", "after"])
    asked = Asked()
    kept.kept("things", "how many", lambda: next(states), asked.find)
    assert not list(folder.glob("*.json"))


def test_the_oldest_answers_are_removed(folder, monkeypatch):
    monkeypatch.setattr(kept, "MOST_ANSWERS", 2)
    asked = Asked()
    for number in range(4):
        asked(str(number))
        for path in folder.glob("*.json"):
            os.utime(path, (number, number)) if path.stat().st_mtime > 100 else None
    assert len(list(folder.glob("*.json"))) == len(list(folder.glob("*.sha256"))) == 2
    assert asked("3") == 4


def test_the_digest_of_the_code_changes_with_every_file_and_package(monkeypatch, tmp_path):
    monkeypatch.setattr(kept, "ROOT", tmp_path)
    (tmp_path / "suite" / "boards").mkdir(parents=True)
    seen = [kept.code.__wrapped__()]
    for name, content in (("a.py", "1"), ("a.py", "2"), ("boards/b.toml", ""), ("boards/page.j2", "")):
        (tmp_path / "suite" / name).write_text(content)
        seen.append(kept.code.__wrapped__())
    for package in ("torch", "numpy", "scipy", "pydantic"):
        monkeypatch.setattr(kept, "version", lambda name, package=package: f"{name == package}")
        seen.append(kept.code.__wrapped__())
    monkeypatch.setattr("sys.version", "another")
    seen.append(kept.code.__wrapped__())
    assert len(set(seen)) == len(seen)


def test_every_file_that_boards_follow_from_is_part_of_the_code():
    names = {str(path.relative_to(kept.ROOT)) for path in kept.code_files(kept.CODE)}
    assert {
        "backbones/mixers/fem/fem.py",
        "suite/config/recipes/sotu.toml",
        "suite/records/checks/crosscheck.py",
    } <= names
    assert {"suite/statistics/noise.py", "suite/boards/page/board.html.j2", "tasks/text/sotu.py"} <= names


def test_the_digest_of_files_changes_with_their_bytes_names_and_kind(tmp_path):
    path, other = tmp_path / "record.json", tmp_path / "other.json"
    seen = [kept.content([]), kept.content([path])]
    path.write_text("{}")
    seen.append(kept.content([path]))
    path.write_text("[]")
    seen += [kept.content([path]), kept.content([path, path])]
    path.rename(other)
    path.symlink_to(other)
    seen += [kept.content([path]), kept.content([other])]
    path.unlink()
    path.mkdir()
    seen.append(kept.content([path]))
    assert len(set(seen)) == len(seen)


def test_a_file_too_large_to_hash_counts_as_changed_each_time(tmp_path, monkeypatch):
    monkeypatch.setattr(kept, "MOST_BYTES", 10)
    (tmp_path / "small").write_text("x" * 10)
    (tmp_path / "large").write_text("x" * 11)
    small, large = ({kept.content([tmp_path / name]) for _ in range(2)} for name in ("small", "large"))
    assert (len(small), len(large)) == (1, 2)

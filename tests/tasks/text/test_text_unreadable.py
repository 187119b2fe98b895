"""Text that may not be read is told by its own name."""

from __future__ import annotations

import errno
import io
import os
from pathlib import Path

import pytest

import tasks
from tasks.base import DataError
from tests.tasks.text.corpus_files import addresses, write_lines, write_rows, write_text


def forbid(monkeypatch, place: Path) -> None:
    """A file or folder that must not be read, whoever asks: its rights do not hold for every user."""

    def guard(module, name: str, *, itself: bool) -> None:
        real = getattr(module, name)

        def guarded(path=".", *args, **kwargs):
            if (itself and str(path) == str(place)) or str(path).startswith(f"{place}{os.sep}"):
                raise PermissionError(errno.EACCES, "Permission denied", str(path))
            return real(path, *args, **kwargs)

        monkeypatch.setattr(module, name, guarded)

    for module, name in ((os, "scandir"), (os, "listdir"), (io, "open")):
        guard(module, name, itself=True)
    guard(os, "stat", itself=False)


def refused(name: str, folder: Path, **options) -> str:
    """What the user is told where the data cannot be had, before or while they are prepared."""
    cls = tasks.get(name)
    with pytest.raises(DataError) as caught:
        cls(cls.Options(tokenizer="bytes", **options), folder).prepare()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_folder_that_cannot_be_read_is_named_and_not_passed_over(tmp_path, monkeypatch):
    for part in ("train", "valid", "test", ".git"):
        write_text(tmp_path / part / "all.txt", addresses()[0])
    with monkeypatch.context() as patched:
        forbid(patched, tmp_path / ".git")
        tasks.get("text")(None, tmp_path).prepare()
    forbid(monkeypatch, tmp_path / "valid")
    reason = "cannot be read: Permission denied; make it readable, or remove it"
    assert refused("text", tmp_path) == f"{tmp_path}/valid {reason}"
    assert refused("text", tmp_path / "valid" / "inner") == f"{tmp_path}/valid/inner {reason}"


@pytest.mark.parametrize(
    ("name", "later"),
    [
        ("train.txt", False),
        ("train.txt", True),
        ("train.jsonl", False),
        ("train.jsonl", True),
        ("train.parquet", False),
    ],
)
def test_a_file_that_cannot_be_read_is_named_and_not_the_cache(tmp_path, monkeypatch, name, later):
    monkeypatch.setenv("SUITE_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "data"
    for part in ("valid", "test"):
        write_text(folder / f"{part}.txt", addresses()[0])
    write = {
        ".txt": lambda p, t: write_text(p, t[0]),
        ".jsonl": write_lines,
        ".parquet": lambda p, t: write_rows(p, {"text": t}),
    }
    path = write[Path(name).suffix](folder / name, addresses()[:2])
    task = tasks.get("text")(None, folder)
    if later:  # it could be read when the files were listed
        assert task._cache.needed()
    forbid(monkeypatch, path)
    with pytest.raises(
        DataError, match=f"^{path} cannot be read: Permission denied; make it readable, or remove it$"
    ) as caught:
        task.prepare()
    assert "\n" not in str(caught.value)
    assert "cache" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "place"), [("wikitext2", "wikitext-2-raw-v1"), ("fineweb-edu", "sample/10BT"), ("fineweb-edu", ".")]
)
def test_a_folder_of_published_text_that_cannot_be_read_is_named(tmp_path, monkeypatch, name, place):
    (tmp_path / place).mkdir(parents=True, exist_ok=True)
    forbid(monkeypatch, tmp_path / place)
    said = refused(name, tmp_path)
    assert said.startswith(f"{tmp_path / place}")
    assert said.endswith(" cannot be read: Permission denied; make it readable, or remove it")

"""An unreadable file or folder of text is reported by its own name."""

from __future__ import annotations

import errno
import io
import os
from pathlib import Path

import pytest

import tasks
from tasks.text.own_text import OwnText
from tests.tasks.errors import error_of
from tests.tasks.text.corpus_files import addresses, write_lines, write_rows, write_text


def forbid(monkeypatch, place: Path) -> None:
    """Makes a file or folder unreadable for every user: permissions would not stop root."""

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


def refused(name: str, folder: Path) -> str:
    """The error when the data cannot be prepared."""
    cls = tasks.get(name)
    return error_of(cls(cls.Options.model_validate({"tokenizer": "bytes"}), folder).prepare)


def test_an_unreadable_folder_is_named_and_not_skipped(tmp_path, monkeypatch):
    for part in ("train", "valid", "test", ".git"):
        write_text(tmp_path / part / "all.txt", addresses()[0])
    with monkeypatch.context() as patched:
        forbid(patched, tmp_path / ".git")
        tasks.get("text")(None, tmp_path).prepare()
    forbid(monkeypatch, tmp_path / "valid")
    for folder, named in ((tmp_path, "valid"), (tmp_path / "valid" / "inner", "valid/inner")):
        message = refused("text", folder)
        for part in (f"{tmp_path}/{named} ", "Permission denied", "make it readable"):
            assert part in message


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
def test_an_unreadable_file_is_named_and_not_the_cache(tmp_path, monkeypatch, name, later):
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
    task = OwnText(None, folder)
    if later:  # it was readable when the files were listed
        assert task._cache.bytes_needed()
    forbid(monkeypatch, path)
    message = error_of(task.prepare)
    for part in (f"{path} ", "Permission denied", "make it readable"):
        assert part in message
    assert "cache" not in message


@pytest.mark.parametrize(
    ("name", "place"), [("wikitext2", "wikitext-2-raw-v1"), ("fineweb-edu", "sample/10BT"), ("fineweb-edu", ".")]
)
def test_an_unreadable_folder_of_published_text_is_named(tmp_path, monkeypatch, name, place):
    (tmp_path / place).mkdir(parents=True, exist_ok=True)
    forbid(monkeypatch, tmp_path / place)
    message = refused(name, tmp_path)
    assert message.startswith(f"{tmp_path / place}")
    for part in ("Permission denied", "make it readable"):
        assert part in message

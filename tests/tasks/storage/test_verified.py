"""Files that are used again: hashed always if they are small, once per machine and state if they are large."""

from __future__ import annotations

import os

import pytest

from tasks.storage import verified
from tests.tasks.errors import error_of


@pytest.fixture
def file(tmp_path, monkeypatch):
    monkeypatch.setenv("SUITE_CACHE", str(tmp_path / "cache"))
    (tmp_path / "a").write_bytes(b"content")
    return tmp_path / "a"


def hashes_of(file, monkeypatch, size_limit):
    """How often the file is hashed in two processes."""
    calls: list[str] = []

    def digest() -> str:
        calls.append("hashed")
        return "digest"

    monkeypatch.setattr(verified, "SMALL_BYTES", size_limit)
    for _ in range(2):
        monkeypatch.setattr(verified, "_seen", {})  # as in another process
        for _ in range(2):
            verified.digest_once([file], digest)
    return len(calls)


def test_small_files_are_hashed_in_every_process_and_large_ones_once(file, monkeypatch):
    assert hashes_of(file, monkeypatch, size_limit=100) == 2
    assert hashes_of(file, monkeypatch, size_limit=1) == 1


def test_the_setting_makes_every_process_hash_large_files_too(file, monkeypatch):
    monkeypatch.setenv(verified.SETTING, "always")
    assert hashes_of(file, monkeypatch, size_limit=1) == 2


@pytest.mark.parametrize("change", ["size", "time", "inode", "content with the same size and time"])
def test_every_change_of_a_large_file_makes_it_be_hashed_again(file, monkeypatch, change):
    monkeypatch.setattr(verified, "SMALL_BYTES", 1)
    before = verified.content_hash([file])
    at = file.stat()
    if change == "size":
        file.write_bytes(b"content!")
    elif change == "time":
        os.utime(file, ns=(at.st_atime_ns, at.st_mtime_ns + 10**9))
    elif change == "inode":
        (file.parent / "b").write_bytes(b"contenT")
        os.utime(file.parent / "b", ns=(at.st_atime_ns, at.st_mtime_ns))
        (file.parent / "b").rename(file)
    else:
        file.write_bytes(b"contenT")
        os.utime(file, ns=(at.st_atime_ns, at.st_mtime_ns))
    monkeypatch.setattr(verified, "_seen", {})
    assert (verified.content_hash([file]) == before) is (change == "time")


def test_a_damaged_file_is_never_remembered_as_good(file, monkeypatch):
    monkeypatch.setattr(verified, "SMALL_BYTES", 1)
    for _ in range(2):
        assert verified.digest_once([file], lambda: "found", expected="written") == "found"
    assert not list((file.parent / "cache").rglob("*.json"))


def test_without_a_writable_cache_files_are_hashed_again(file, monkeypatch, tmp_path):
    monkeypatch.setenv("SUITE_CACHE", str(tmp_path / "a" / "under a file"))
    assert hashes_of(file, monkeypatch, size_limit=1) == 2


def test_a_missing_file_is_named(tmp_path):
    assert str(tmp_path / "gone") in error_of(lambda: verified.content_hash([tmp_path / "gone"]))


def test_hashing_all_ends_with_its_block(monkeypatch):
    monkeypatch.delenv(verified.SETTING, raising=False)
    with verified.hashing_all():
        assert os.environ[verified.SETTING] == "always"
    assert verified.SETTING not in os.environ
    with verified.hashing_all(False):
        assert verified.SETTING not in os.environ


def test_a_run_hashes_all_data_only_where_it_is_requested(monkeypatch):
    from typer.testing import CliRunner

    from suite.cli.app import app
    from suite.errors import UserError

    found = []

    def start(*_: object, **__: object) -> None:
        found.append(os.environ.get(verified.SETTING))
        raise UserError("not run")

    monkeypatch.setattr("suite.training.run.start", start)
    given = ["run", "--task", "mqar", "--mixer", "softmax"]
    for options in ([], ["--verify-data"]):
        CliRunner().invoke(app, [*given, *options])
    assert found == [None, "always"]

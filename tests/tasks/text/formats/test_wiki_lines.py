"""WikiText in its classic files is the same text as the hub's, bit for bit where it is the raw one."""

from __future__ import annotations

import pytest

from tasks.base import Split
from tasks.text.wikitext import NAMES, WikiText2, WikiText103, WikiTextOptions
from tests.tasks.errors import error_of
from tests.tasks.text.corpus_files import wiki_rows, write_text, write_wikitext
from tests.tasks.text.corpus_reading import check_resumes, documents

ROWS: dict[Split, int] = {"train": 3300, "valid": 200, "test": 210}


@pytest.fixture(autouse=True)
def small(monkeypatch, tmp_path):
    monkeypatch.setenv("SUITE_CACHE", str(tmp_path / "cache"))
    for cls in (WikiText2, WikiText103):
        monkeypatch.setattr(cls, "rows", ROWS)


def write_classic(folder, name, *, unknown=False, end="\n"):
    """The files as they are published: an empty row is a line of one space."""
    for seed, (split, count) in enumerate(ROWS.items()):
        text = "".join(row or " \n" for row in wiki_rows(count, 60 * seed)).replace("\n", end)
        write_text(folder / name.format(split), text.replace(" the ", " <unk> ") if unknown else text)
    return folder


def task(folder, cls=WikiText2):
    return cls(WikiTextOptions(tokenizer="bytes", length=32), folder)


@pytest.mark.parametrize(
    ("name", "cls", "end"),
    [
        ("wiki.{}.raw", WikiText2, "\n"),
        ("wiki.{}.tokens", WikiText103, "\n"),
        ("{}.txt", WikiText2, "\n"),
        ("wiki.{}.raw", WikiText103, "\r\n"),
    ],
)
@pytest.mark.slow
def test_the_classic_files_give_the_fingerprint_of_the_hubs_files(tmp_path, name, cls, end):
    published = task(write_wikitext(tmp_path / "hub", cls, ROWS), cls)
    classic = task(write_classic(tmp_path / "classic", name, end=end), cls)
    assert classic.fingerprint == published.fingerprint
    assert classic.info().splits == published.info().splits
    check_resumes(classic._corpus)


@pytest.mark.parametrize("place", ["wikitext-2-raw", "wikitext-2", "."])
def test_the_folders_of_the_archives_are_found(tmp_path, place):
    made = write_classic(tmp_path / place, "wiki.{}.tokens")
    assert documents(task(tmp_path)._corpus) == documents(task(made)._corpus)


def test_word_level_files_are_reported_to_be_another_text(tmp_path):
    raw = task(write_classic(tmp_path / "raw", "wiki.{}.raw"))
    words = task(write_classic(tmp_path / "words", "wiki.{}.tokens", unknown=True))
    assert words.fingerprint != raw.fingerprint
    note = "wiki.train.tokens: rare words are <unk>, so this is another text than the hub's raw one"
    assert any(note in one for one in words.info().notes)
    assert not any("<unk>" in one for one in raw.info().notes)


def test_the_raw_files_count_where_both_are_in_one_folder(tmp_path):
    write_classic(tmp_path, "wiki.{}.raw")
    write_classic(tmp_path, "wiki.{}.tokens", unknown=True)
    assert not any("<unk>" in text for some in documents(task(tmp_path)._corpus).values() for text in some)


def test_missing_truncated_and_foreign_files_are_named(tmp_path):
    assert "or the classic ones (wiki.train.raw, wiki.train.tokens, train.txt" in error_of(task(tmp_path).load)
    write_classic(tmp_path, "wiki.{}.tokens")
    (tmp_path / "wiki.valid.tokens").unlink()
    assert error_of(task(tmp_path).load) == f"{tmp_path} lacks wiki.valid.tokens; copy the three files of WikiText"
    write_classic(tmp_path, "wiki.{}.tokens")
    train = tmp_path / "wiki.train.tokens"
    train.write_bytes(train.read_bytes()[:-9000])
    message = error_of(task(tmp_path).load)
    assert f"{train} has " in message
    assert "the published files have 3,300; for your own text: --task text" in message
    train.write_bytes(train.read_text("utf-8").encode("utf-16"))
    assert set(NAMES) == set(ROWS)


def test_another_encoding_is_named(tmp_path):
    write_classic(tmp_path, "{}.txt")
    train = tmp_path / "train.txt"
    text = train.read_text("utf-8").split("\n")
    train.write_bytes("\n".join([*text[:20], " café \n".rstrip("\n"), *text[21:]]).encode("latin-1"))
    assert "line 21 is then 'café'" in error_of(task(tmp_path).load)

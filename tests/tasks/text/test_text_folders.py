"""Folders of text: the split of each file, and what is held out when the names give no split."""

from __future__ import annotations

import itertools
import json

import pytest

import tasks
from tasks.text import files, held_out_lines
from tasks.text.files import find_text
from tests.tasks.errors import error_of
from tests.tasks.text.corpus_files import addresses, pages, write_lines, write_rows, write_text
from tests.tasks.text.corpus_reading import check_resumes, documents


@pytest.mark.parametrize(
    ("names", "splits"),
    [
        (("train.txt", "valid.txt", "test.txt"), ("train", "valid", "test")),
        (("wiki.train.raw.txt", "wiki.valid.raw.txt", "wiki.test.raw.txt"), ("train", "valid", "test")),
        (("train/a.txt", "validation/a.txt", "test/a.txt"), ("train", "valid", "test")),
        (("Train-1.txt", "dev.txt", "my_test.txt"), ("train", "valid", "test")),
        (("test/train.txt", "test/val.txt", "test/a.txt"), ("train", "valid", "test")),
    ],
)
def test_files_belong_to_the_split_in_their_name_or_else_in_their_folder(tmp_path, names, splits):
    for i, name in enumerate(names):
        write_text(tmp_path / name, f"text {i}\nits end")
    by_split = documents(find_text(tmp_path, "text"))
    assert by_split == {split: [f"text {i}\nits end"] for i, split in enumerate(splits)}


def test_a_file_name_is_never_a_pattern(tmp_path):
    folder = tmp_path / "books [2024]"
    names = "train-a1.txt", "train-a2.txt", "train-a[12].txt", "train-w*.txt"
    for name in names:
        write_text(folder / name, name)
    write_text(folder / "valid.txt", "valid")
    write_text(folder / "test.txt", "test")
    assert sorted(documents(find_text(folder, "text"))["train"]) == sorted(names)


def test_all_three_formats_are_read_and_a_row_or_a_text_file_is_a_document(tmp_path):
    write_lines(tmp_path / "train-1.jsonl", ["one\n\nof two", "two 😀"])
    write_rows(tmp_path / "train-2.parquet", {"text": ["three", "", None, "four"], "id": [1, 2, 3, 4]})
    write_text(tmp_path / "train-0.txt", addresses()[0])
    write_text(tmp_path / "valid.txt", "a\r\nb\n\n\n c \u2028 d\x0c e")
    write_text(tmp_path / "test.txt", "no line end")
    write_text(tmp_path / "README.md", "is not read")
    by_split = documents(find_text(tmp_path, "text"))
    assert by_split["train"] == [addresses()[0], "one\n\nof two", "two 😀", "three", "", "", "four"]
    assert by_split["valid"] == ["a\nb\n\n\n c \u2028 d\x0c e"]  # only the line ends are translated
    assert by_split["test"] == ["no line end"]


def test_one_file_is_cut_between_lines_at_90_and_95_percent(tmp_path):
    text = "\n".join(pages(500, 97)) + "\n"
    path = write_text(tmp_path / "input.txt", text)
    by_split = documents(find_text(tmp_path, "text"))
    assert by_split == documents(find_text(path, "text"))
    [train], [valid], [test] = by_split["train"], by_split["valid"], by_split["test"]
    assert train + valid + test == text
    assert train.endswith("\n")
    assert valid.endswith("\n")
    assert 0 <= len(train.encode()) - 0.9 * len(text.encode()) <= 110
    assert 0 <= len((train + valid).encode()) - 0.95 * len(text.encode()) <= 110


def test_a_field_that_ends_in_the_middle_of_a_file_is_reported(tmp_path):
    rows = [{"text": f"page {i}"} for i in range(1000)] + [{"txt": f"page {i}"} for i in range(1500)]
    (tmp_path / "all.jsonl").write_text("\n".join(map(json.dumps, rows)))
    message = error_of(documents, find_text(tmp_path, "text"))
    for part in ("all.jsonl", "'text'", "line 1001", "txt", "--set text_field=NAME"):
        assert part in message


def test_blocks_of_whole_files_end_by_size_too(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "CHARS_PER_BLOCK", 1000)
    for i in range(120):
        write_text(tmp_path / f"{i:03}.txt", "a word " * 40)
    blocks = list(find_text(tmp_path, "text").blocks())
    assert [len(block.fragments) for block in blocks] == [4] * 30
    check_resumes(find_text(tmp_path, "text"))


def test_line_ends_of_two_bytes_change_no_split(tmp_path, monkeypatch):
    text = "\n".join("short" if i % 3 else "" for i in range(4000)) + "\n"
    unix, dos = tmp_path / "unix.txt", tmp_path / "dos.txt"
    unix.write_bytes(text.encode())
    dos.write_bytes(text.replace("\n", "\r\n").encode())
    monkeypatch.setattr(held_out_lines, "READ_BYTES", 7)  # a pair split between two reads counts too
    from_unix, from_dos = documents(find_text(unix, "text")), documents(find_text(dos, "text"))
    assert [len("".join(from_dos[split])) for split in from_dos] == [
        len("".join(from_unix[split])) for split in from_unix
    ]
    assert from_unix["test"]


def test_rows_are_held_out_by_their_text_only_about_five_percent_each(tmp_path):
    some = pages(2000, 300)
    write_lines(tmp_path / "a" / "all.jsonl", some)
    write_rows(tmp_path / "b" / "some.parquet", {"text": list(reversed(some[500:]))})
    one, other = (documents(find_text(tmp_path / name, "text")) for name in "ab")
    assert sorted(itertools.chain(*one.values())) == sorted(some)
    assert 60 < len(one["valid"]) < 140
    assert 60 < len(one["test"]) < 140
    for split in ("valid", "test"):
        assert set(other[split]) == set(one[split]) & set(some[500:])


def test_a_hundred_text_files_are_held_out_as_whole_documents_by_their_text(tmp_path):
    some = pages(400, 100)
    for i, text in enumerate(some):
        write_text(tmp_path / f"{i:03}.txt", text)
    by_split = documents(find_text(tmp_path, "text"))
    assert sorted(itertools.chain(*by_split.values())) == sorted(some)
    assert 8 < len(by_split["valid"]) < 40
    assert 8 < len(by_split["test"]) < 40


def test_many_text_files_can_be_resumed_and_one_that_is_not_utf8_is_named(tmp_path):
    for i in range(350):
        write_text(tmp_path / f"{i:03}.txt", f"{i}\r\nend")
    corpus = find_text(tmp_path, "text")
    check_resumes(corpus)
    assert "7\nend" in documents(corpus)["train"]
    (tmp_path / "207.txt").write_bytes(b"caf\xe9")
    message = error_of(documents, corpus)
    assert "207.txt" in message
    assert "save it as UTF-8" in message


def test_if_only_one_split_is_missing_only_that_one_is_held_out(tmp_path):
    write_lines(tmp_path / "train.jsonl", pages(400, 100))
    write_lines(tmp_path / "test.jsonl", ["the test"])
    by_split = documents(find_text(tmp_path, "text"))
    assert by_split["test"] == ["the test"]
    assert len(by_split["train"]) + len(by_split["valid"]) == 400
    assert 8 < len(by_split["valid"]) < 40


def test_linked_folders_are_read_once_and_circular_links_end(tmp_path):
    write_text(tmp_path / "set" / "train" / "a.txt", "one")
    write_text(tmp_path / "elsewhere" / "valid" / "b.txt", "two")
    write_text(tmp_path / "elsewhere" / "test" / "c.txt", "three")
    links = {
        "more": "../elsewhere",
        "again": "../elsewhere",
        "up": "..",
        "train/self": ".",
        "train/whole": "..",
        "0": "train",
    }
    for link, target in links.items():
        (tmp_path / "set" / link).symlink_to(target, target_is_directory=True)
    (tmp_path / "set" / "loop").symlink_to("loop")
    (tmp_path / "outside.txt").write_text("not below the folder")
    corpus = find_text(tmp_path / "set", "text")
    assert documents(corpus) == {"train": ["one"], "valid": ["two"], "test": ["three"]}
    assert corpus.files[0] == tmp_path / "set" / "train" / "a.txt"  # not through the link to its folder
    (tmp_path / "itself").symlink_to("elsewhere")
    write_text(tmp_path / "elsewhere" / "train.txt", "four")
    assert documents(find_text(tmp_path / "itself", "text")) == {"train": ["four"], "valid": ["two"], "test": ["three"]}


def test_ignored_files_are_counted_by_suffix_in_info_and_prepare_note(tmp_path):
    write_text(tmp_path / "LICENSE.txt", "\n".join(pages(20, 500)))
    task = tasks.get("text")(None, tmp_path)
    assert not [note for note in (task.prepare_note(), *task.info().notes) if "ignored" in note]
    for i in range(20):
        write_text(tmp_path / "docs" / f"{i}.md", "x")
    write_text(tmp_path / "README", "x")
    write_text(tmp_path / ".git" / "x.md", "x")
    task = tasks.get("text")(None, tmp_path)
    [ignored] = [note for note in task.info().notes if "ignored" in note]
    assert "21 files" in ignored
    assert "(20 .md, 1 without a suffix;" in ignored
    assert task.prepare_note().endswith(f"; {ignored}")
    task.prepare()
    assert task.prepare_note() == ignored
    assert ignored in task.info().notes
    assert "ignored" not in tasks.get("text")(None, tmp_path / "LICENSE.txt").prepare_note()


def test_without_a_folder_info_explains_how_text_is_read_and_split():
    notes = " ".join(tasks.get("text")().info().notes)
    for word in (
        ".txt",
        ".jsonl",
        ".parquet",
        "text_field=NAME",
        "train, valid (validation, val, dev) or test",
        "5 %",
        "100 .txt files",
    ):
        assert word in notes


@pytest.mark.parametrize("name", ["my_test.txt", "validation.txt", "train.txt", "notes.txt", "dev test.txt"])
def test_a_single_file_is_held_out_of_whatever_its_name(tmp_path, name):
    path = write_text(tmp_path / name, "a line of text\n" * 400)
    (group,) = find_text(path, "text").groups
    assert (group.files, group.split, group.missing) == ((path,), None, ("valid", "test"))


def test_the_file_whose_name_contains_a_split_by_chance_is_named(tmp_path):
    for name in ("notes.txt", "test bench manual.txt"):
        write_text(tmp_path / name, "a line of text\n" * 40)
    message = error_of(lambda: find_text(tmp_path, "text"))
    assert "(test bench manual.txt: test), notes.txt does not" in message

"""Text files, JSON lines and Parquet: rows as documents, resuming after any block, and errors about invalid files."""

from __future__ import annotations

import json

import pyarrow as pa
import pytest

from tasks.text.files import find_text
from tests.tasks.errors import error_of
from tests.tasks.text.corpus_files import pages, write_lines, write_rows, write_text
from tests.tasks.text.corpus_reading import check_resumes, documents


def test_reading_resumes_after_any_block(tmp_path):
    for name, some in (("train-1", pages(2500, 50)), ("train-2", pages(1200, 51))):
        path = write_lines(tmp_path / f"{name}.jsonl", some)
        write_text(path, path.read_text("utf-8").replace("\n", "\n\n", 900))
    write_text(tmp_path / "train-a.txt", "\n".join(pages(2500, 50)))
    write_text(tmp_path / "train-b.txt", "\n".join(pages(1500, 50)))
    check_resumes(find_text(tmp_path, "text"))


def test_the_text_field_is_an_option_and_a_wrong_one_is_reported_with_the_fields(tmp_path):
    write_lines(tmp_path / "all.jsonl", pages(400, 100), field="body")
    write_rows(tmp_path / "all.parquet", {"body": list(pages(400, 100)), "year": [1] * 400})
    assert sum(map(len, documents(find_text(tmp_path, "body")).values())) == 800
    for name, field, parts in (
        ("all.jsonl", "text", ("'text'", "body, number")),
        ("all.jsonl", "number", ("'number' holds int", "line 1,")),
        ("all.parquet", "text", ("'text'", "body, year")),
    ):
        message = error_of(documents, find_text(tmp_path / name, field))
        for part in (name, *parts, "--set text_field=NAME"):
            assert part in message


@pytest.mark.parametrize("wrong", [5, ["a"], {"a": "b"}, True])
def test_a_row_whose_field_is_not_text_is_refused_with_its_file_and_line(tmp_path, wrong):
    rows = [{"text": f"page {i}"} for i in range(300)]
    path = write_text(tmp_path / "all.jsonl", "\n".join(map(json.dumps, [*rows[:150], {"text": wrong}, *rows[150:]])))
    message = error_of(documents, find_text(path, "text"))
    for part in ("all.jsonl", f"'text' holds {type(wrong).__name__}", "line 151,", "--set text_field=NAME"):
        assert part in message


def test_rows_without_text_are_empty_documents_and_blank_lines_are_skipped(tmp_path):
    rows = ['{"text": null}', '{"text": "a"}', "", '{"other": 1}', '{"text": ""}\r', "  ", '{"text": "b\\u2028\u2028"}']
    write_text(tmp_path / "train.jsonl", "\ufeff" + "\n".join(rows))
    for name in ("valid", "test"):
        write_lines(tmp_path / f"{name}.jsonl", ["2024-05-01", "2024-05-02"])  # text, though it looks like a date
    by_split = documents(find_text(tmp_path, "text"))
    assert by_split["train"] == ["", "a", "", "", "b\u2028\u2028"]
    assert by_split["valid"] == ["2024-05-01", "2024-05-02"]


def test_other_keys_of_the_rows_and_their_types_change_nothing(tmp_path):
    rows = [{"text": "one", "n": 1}, {"text": "two", "n": "x", "more": {"a": 1}}, {"n": [1], "text": "three"}]
    for i, row in enumerate(rows):
        write_text(tmp_path / f"train-{i}.jsonl", json.dumps(row))
    for name in ("valid", "test"):
        write_text(tmp_path / f"{name}.jsonl", "\n".join(map(json.dumps, rows)))
    assert list(documents(find_text(tmp_path, "text")).values()) == [["one", "two", "three"]] * 3


def test_parquet_files_may_differ_in_all_columns_but_the_text(tmp_path):
    tables = [
        {"text": ["one"], "n": [1]},
        {"text": ["two"], "n": [1.5], "more": ["x"]},
        {"more": [{"a": 1}], "text": ["three"]},
        {"text": pa.array(["four"], pa.large_string())},
        {"text": pa.array(["five"]).dictionary_encode()},
        {"text": pa.nulls(1)},
        {"text": pa.array(["six"], pa.string_view())},
    ]
    whole = ["one", "two", "three", "four", "five", "", "six"]
    for order in (range(7), reversed(range(7))):
        folder, expected = tmp_path / repr(order), []
        for place, n in enumerate(order):
            write_rows(folder / f"train-{place}.parquet", tables[n])
            expected.append(whole[n])
        for name in ("valid", "test"):
            write_rows(folder / f"{name}.parquet", tables[0])
        assert documents(find_text(folder, "text")) == {"train": expected, "valid": ["one"], "test": ["one"]}


@pytest.mark.parametrize(("wrong", "found"), [({"text": [5]}, "'text' holds int64"), ({"body": ["a"]}, "body")])
def test_the_parquet_file_that_has_no_text_is_named(tmp_path, wrong, found):
    write_rows(tmp_path / "a.parquet", {"text": pages(20)})
    write_rows(tmp_path / "b.parquet", wrong)
    message = error_of(documents, find_text(tmp_path, "text"))
    for part in ("b.parquet", found, "--set text_field=NAME"):
        assert part in message


def test_ambiguous_splits_and_missing_text_are_refused_with_a_suggestion(tmp_path):
    write_text(tmp_path / "a" / "train.txt", "x")
    write_text(tmp_path / "a" / "more.txt", "x")
    write_text(tmp_path / "b" / "valid.txt", "x")
    (tmp_path / "c").mkdir()
    for place, parts in (
        ("a", ("more.txt", "train, valid or test")),
        ("b", ("only valid", "train")),
        ("c", ("nothing", ".txt, .jsonl or .parquet")),
        ("none", ("--data-dir DIR",)),
    ):
        message = error_of(find_text, tmp_path / place, "text")
        for part in (str(tmp_path / place), *parts):
            assert part in message


@pytest.mark.parametrize(
    ("name", "content", "suggestion"),
    [
        ("train.parquet", b"not Parquet", ""),
        ("latin.txt", b"caf\xe9\n" * 5, ""),
        ("broken.jsonl", b'{"text": "a"}\n{"text": \n', "one JSON object per line"),
        ("list.jsonl", b'[{"text": "a"}, {"text": "b"}]', "one JSON object per line"),
    ],
)
def test_a_file_that_is_not_of_its_format_is_named(tmp_path, name, content, suggestion):
    (tmp_path / name).write_bytes(content)
    message = error_of(documents, find_text(tmp_path / name, "text"))
    assert message.startswith(f"{tmp_path / name} cannot be read: ")
    assert suggestion in message
    if name == "train.parquet":
        assert name in error_of(lambda: find_text(tmp_path / name, "text").size)


@pytest.mark.parametrize("resumed", [False, True])
def test_the_line_number_counts_blank_lines_and_lines_before_resuming(tmp_path, resumed):
    lines = [json.dumps({"text": f"page {i}"}) for i in range(2500)]
    lines[100:900:8] = [""] * 100
    path = write_text(tmp_path / "all.jsonl", "\n".join([*lines[:2100], '{"text": 5}', *lines[2100:]]))
    corpus = find_text(path, "text")
    state = json.loads(json.dumps(next(iter(corpus.blocks())).state)) if resumed else None
    assert "line 2101," in error_of(documents, corpus, state)


def test_only_the_text_column_of_parquet_files_counts_for_the_disk_space(tmp_path):
    rows = {"text": pages(100, 500), "html": [f"<p>{page}</p>" for page in pages(100, 2000)]}
    write_rows(tmp_path / "all.parquet", rows)
    assert 0.9 < find_text(tmp_path, "text").size / sum(len(text.encode()) + 4 for text in rows["text"]) < 1.1

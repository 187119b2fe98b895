"""Text files, JSON lines and Parquet: rows as documents, going on behind any block, and what cannot be used in one
line.
"""

from __future__ import annotations

import json

import pyarrow as pa
import pytest

from tasks.base import DataError
from tasks.text.files import find_text
from tests.tasks.text.corpus_files import pages, write_lines, write_rows, write_text
from tests.tasks.text.corpus_reading import check_resumes, documents


def test_reading_goes_on_behind_any_block(tmp_path):
    for name, some in (("train-1", pages(2500, 50)), ("train-2", pages(1200, 51))):
        path = write_lines(tmp_path / f"{name}.jsonl", some)
        write_text(path, path.read_text("utf-8").replace("\n", "\n\n", 900))
    write_text(tmp_path / "train-a.txt", "\n".join(pages(2500, 50)))
    write_text(tmp_path / "train-b.txt", "\n".join(pages(1500, 50)))
    check_resumes(find_text(tmp_path, "text"))


def test_another_field_is_named_by_an_option_and_a_wrong_one_is_told_with_those_there_are(tmp_path):
    write_lines(tmp_path / "all.jsonl", pages(400, 100), field="body")
    write_rows(tmp_path / "all.parquet", {"body": list(pages(400, 100)), "year": [1] * 400})
    assert sum(map(len, documents(find_text(tmp_path, "body")).values())) == 800
    for field, said in (
        ("text", "has no field 'text' .there are: body, number."),
        ("number", "holds int in line 1, text is needed"),
    ):
        with pytest.raises(DataError, match=said) as caught:
            documents(find_text(tmp_path / "all.jsonl", field))
        assert "\n" not in str(caught.value)
    with pytest.raises(DataError, match=r"has no field 'text' .there are: body, year."):
        documents(find_text(tmp_path / "all.parquet", "text"))


@pytest.mark.parametrize("wrong", [5, ["a"], {"a": "b"}, True])
def test_a_row_whose_text_is_none_is_refused_with_its_file_and_line_and_changes_no_other(tmp_path, wrong):
    rows = [{"text": f"page {i}"} for i in range(300)]
    path = write_text(tmp_path / "all.jsonl", "\n".join(map(json.dumps, [*rows[:150], {"text": wrong}, *rows[150:]])))
    said = (
        rf"all\.jsonl: the field 'text' holds {type(wrong).__name__} in line 151, text is needed; "
        rf"correct the line, or name"
    )
    with pytest.raises(DataError, match=said) as caught:
        documents(find_text(path, "text"))
    assert "\n" not in str(caught.value)


def test_rows_without_text_are_empty_documents_and_empty_lines_are_none(tmp_path):
    rows = ['{"text": null}', '{"text": "a"}', "", '{"other": 1}', '{"text": ""}\r', "  ", '{"text": "b\\u2028\u2028"}']
    write_text(tmp_path / "train.jsonl", "\ufeff" + "\n".join(rows))
    for name in ("valid", "test"):
        write_lines(tmp_path / f"{name}.jsonl", ["2024-05-01", "2024-05-02"])  # text, though it looks like a date
    made = documents(find_text(tmp_path, "text"))
    assert made["train"] == ["", "a", "", "", "b\u2028\u2028"]
    assert made["valid"] == ["2024-05-01", "2024-05-02"]


def test_what_other_keys_the_rows_have_and_of_which_type_changes_nothing(tmp_path):
    rows = [{"text": "one", "n": 1}, {"text": "two", "n": "x", "more": {"a": 1}}, {"n": [1], "text": "three"}]
    for i, row in enumerate(rows):
        write_text(tmp_path / f"train-{i}.jsonl", json.dumps(row))
    for name in ("valid", "test"):
        write_text(tmp_path / f"{name}.jsonl", "\n".join(map(json.dumps, rows)))
    assert list(documents(find_text(tmp_path, "text")).values()) == [["one", "two", "three"]] * 3


def test_parquet_files_need_agree_on_nothing_but_the_text(tmp_path):
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


@pytest.mark.parametrize(
    ("wrong", "said"), [({"text": [5]}, "holds int64, text is needed"), ({"body": ["a"]}, "has no field 'text' .there")]
)
def test_the_parquet_file_that_has_no_text_is_named(tmp_path, wrong, said):
    write_rows(tmp_path / "a.parquet", {"text": pages(20)})
    write_rows(tmp_path / "b.parquet", wrong)
    with pytest.raises(DataError, match=rf"b\.parquet.* {said}") as caught:
        documents(find_text(tmp_path, "text"))
    assert "\n" not in str(caught.value)


def test_what_cannot_be_used_is_one_line(tmp_path):
    write_text(tmp_path / "a" / "train.txt", "x")
    write_text(tmp_path / "a" / "more.txt", "x")
    write_text(tmp_path / "b" / "valid.txt", "x")
    (tmp_path / "c").mkdir()
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "train.parquet").write_text("not Parquet")
    (tmp_path / "d" / "latin.txt").write_bytes(b"caf\xe9\n" * 5)
    (tmp_path / "d" / "broken.jsonl").write_text('{"text": "a"}\n{"text": \n')
    (tmp_path / "d" / "list.jsonl").write_text('[{"text": "a"}, {"text": "b"}]')
    for place, said in (
        ("a", "more.txt is not; put train, valid or test into every name or none"),
        ("b", "no file is named train, only valid"),
        ("c", "holds no text .there is: nothing"),
        ("none", "does not exist"),
    ):
        with pytest.raises(DataError, match=said):
            find_text(tmp_path / place, "text")
    with pytest.raises(DataError, match=r"train\.parquet cannot be read: it is not a Parquet file"):
        find_text(tmp_path / "d" / "train.parquet", "text").size  # noqa: B018
    for name in ("latin.txt", "broken.jsonl", "list.jsonl", "train.parquet"):
        with pytest.raises(DataError, match=f"{name} cannot be read: ") as caught:
            documents(find_text(tmp_path / "d" / name, "text"))
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("resumed", [False, True])
def test_the_line_named_is_the_files_own_behind_empty_lines_and_where_reading_goes_on(tmp_path, resumed):
    lines = [json.dumps({"text": f"page {i}"}) for i in range(2500)]
    lines[100:900:8] = [""] * 100
    path = write_text(tmp_path / "all.jsonl", "\n".join([*lines[:2100], '{"text": 5}', *lines[2100:]]))
    corpus = find_text(path, "text")
    state = json.loads(json.dumps(next(iter(corpus.blocks())).state)) if resumed else None
    with pytest.raises(DataError, match=r"holds int in line 2101, text is needed"):
        documents(corpus, state)


def test_of_parquet_files_only_the_texts_column_counts_for_the_disk(tmp_path):
    rows = {"text": pages(100, 500), "html": [f"<p>{page}</p>" for page in pages(100, 2000)]}
    write_rows(tmp_path / "all.parquet", rows)
    assert 0.9 < find_text(tmp_path, "text").size / sum(len(text.encode()) + 4 for text in rows["text"]) < 1.1

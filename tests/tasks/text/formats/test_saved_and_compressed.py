"""Folders of `save_to_disk`, compressed JSON, lists of JSON, and files without a suffix: the same documents as in the
usual formats.
"""

from __future__ import annotations

import gzip
import json
import lzma
from pathlib import Path

import pyarrow as pa
import pytest

from tasks.text.files import find_text
from tasks.text.own_text import OwnText, TextOptions
from tests.tasks.errors import error_of
from tests.tasks.text.corpus_files import pages, write_lines, write_rows, write_text
from tests.tasks.text.corpus_reading import check_resumes, documents

DOCUMENTS = pages(400, 200)


def zstd(content: bytes) -> bytes:
    """In two frames, as tools for logs write them."""
    half = len(content) // 2
    return b"".join(pa.compress(part, codec="zstd", asbytes=True) for part in (content[:half], content[half:]))


def save_to_disk(folder: Path, **splits) -> Path:
    """A DatasetDict, or a Dataset where one split is called `all`."""
    from datasets import Dataset, DatasetDict

    made = {name: Dataset.from_dict({"text": texts, "n": range(len(texts))}) for name, texts in splits.items()}
    (made["all"] if "all" in made else DatasetDict(made)).save_to_disk(folder, num_shards=None)
    return folder


def lines() -> bytes:
    return "".join(json.dumps({"text": text}) + "\n" for text in DOCUMENTS).encode()


def listed() -> bytes:
    return json.dumps([{"text": text} for text in DOCUMENTS], indent=1).encode()


FILES = {
    "a.jsonl.gz": lambda: gzip.compress(lines(), mtime=0),
    "a.jsonl.zst": lambda: zstd(lines()),
    "a.JSONL.GZ": lambda: gzip.compress(lines(), mtime=0),
    "a.json": listed,
    "lines.json": lines,
    "a.json.gz": lambda: gzip.compress(listed(), mtime=0),
    "a.json.zst": lambda: zstd(listed()),
}


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    return documents(find_text(write_lines(tmp_path_factory.mktemp("plain") / "a.jsonl", DOCUMENTS), "text"))


@pytest.mark.parametrize("name", FILES)
def test_a_file_of_rows_gives_the_same_documents_in_every_format(tmp_path, expected, name):
    (tmp_path / name).write_bytes(FILES[name]())
    assert documents(find_text(tmp_path / name, "text")) == expected
    assert documents(find_text(tmp_path, "text")) == expected
    assert find_text(tmp_path, "text").size > sum(map(len, DOCUMENTS)) * 0.5


def test_a_saved_data_set_gives_the_same_documents_and_its_splits_are_used(tmp_path, expected):
    assert documents(find_text(save_to_disk(tmp_path / "one", all=DOCUMENTS), "text")) == expected
    parts = {"train": DOCUMENTS[:300], "validation": DOCUMENTS[300:350], "test": DOCUMENTS[350:]}
    corpus = find_text(save_to_disk(tmp_path / "three", **parts), "text")
    assert list(documents(corpus).values()) == [list(part) for part in parts.values()]
    assert corpus.ignored == ""
    assert 0.9 < corpus.size / sum(map(len, DOCUMENTS)) < 1.2


@pytest.mark.parametrize("name", ["a.jsonl.gz", "a.jsonl.zst", "a.json", "a.json.gz", "saved"])
def test_reading_of_every_format_resumes_after_any_block(tmp_path, monkeypatch, name):
    if name == "saved":
        from datasets import Dataset

        Dataset.from_dict({"text": pages(3000, 50)}).save_to_disk(tmp_path, num_shards=2)
    else:
        rows = [{"text": text} for text in pages(3000, 50)]
        content = (
            json.dumps(rows) if "json." in f"{name}." and "jsonl" not in name else "\n".join(map(json.dumps, rows))
        )
        pack = gzip.compress if name.endswith("gz") else zstd if name.endswith("zst") else bytes
        (tmp_path / name).write_bytes(pack(content.encode()))
    check_resumes(find_text(tmp_path, "text"))


def test_the_fingerprint_is_that_of_the_text_not_of_the_format(tmp_path, monkeypatch):
    monkeypatch.setenv("SUITE_CACHE", str(tmp_path / "cache"))
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "a.jsonl.gz").write_bytes(FILES["a.jsonl.gz"]())
    folders = [tmp_path / "a", save_to_disk(tmp_path / "b", all=DOCUMENTS)]
    assert len({OwnText(TextOptions(length=32), folder).fingerprint for folder in folders}) == 1


@pytest.mark.parametrize("name", ["enwik8", "corpus.xml", "wiki.train.tokens", "README", "notes.md"])
def test_a_file_that_is_named_by_itself_is_text_whatever_its_name(tmp_path, name):
    plain = write_text(tmp_path / "a.txt", "\n".join(pages(40, 2000)))
    named = write_text(tmp_path / name, plain.read_text("utf-8"))
    assert documents(find_text(named, "text")) == documents(find_text(plain, "text"))


def test_a_folder_of_one_file_without_a_suffix_is_that_file_and_others_name_the_way(tmp_path):
    file = write_text(tmp_path / "data" / "enwik8", "\n".join(pages(40, 2000)))
    assert documents(find_text(file.parent, "text")) == documents(find_text(file, "text"))
    write_text(tmp_path / "data" / "more", "x")
    message = error_of(find_text, file.parent, "text")
    assert f"name it: --data-dir {file}" in message


def test_json_files_next_to_other_text_are_settings_and_are_counted(tmp_path):
    write_lines(tmp_path / "a.jsonl", DOCUMENTS)
    write_text(tmp_path / "config.json", '{"name": 1}')
    corpus = find_text(tmp_path, "text")
    assert [path.name for path in corpus.files] == ["a.jsonl"]
    assert "1 .json" in corpus.ignored


def test_a_file_that_is_there_twice_is_refused(tmp_path):
    path = write_lines(tmp_path / "a.jsonl", DOCUMENTS)
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(path.read_bytes()))
    assert "a.jsonl would be the same text twice; remove one" in error_of(find_text, tmp_path, "text")


@pytest.mark.parametrize("name", ["a.jsonl.gz", "a.jsonl.zst", "a.json.gz", "a.json.zst"])
@pytest.mark.parametrize("damage", [lambda content: content[:-40], lambda content: content[:50] + b"x" * 60])
def test_a_damaged_compressed_file_is_named_in_one_line(tmp_path, name, damage):
    (tmp_path / name).write_bytes(damage(FILES[name]()))
    message = error_of(lambda: documents(find_text(tmp_path, "text")))
    assert message.startswith(f"{tmp_path / name} cannot be read: it is not a whole ")
    assert "compress it again" in message


def test_compressed_text_is_refused_with_the_command_that_decompresses_it(tmp_path):
    (tmp_path / "a.txt.gz").write_bytes(gzip.compress(b"text"))
    assert "Decompress it: gunzip -k a.txt.gz" in error_of(find_text, tmp_path / "a.txt.gz", "text")
    (tmp_path / "a.xz").write_bytes(lzma.compress(b"text"))
    assert "it is a xz file" in error_of(lambda: documents(find_text(tmp_path / "a.xz", "text")))


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ('[{"text": "a"}, 5]', "element 2 of its list is int"),
        ('[{"text": "a"}, {"text": 5}]', "'text' holds int in element 2"),
        ('[{"body": "a"}]', "no field 'text' (fields: body)"),
        ('[{"text": "a"}, ', "it is not JSON"),
        ('{\n "data": []\n}', "line 1 is not JSON"),
    ],
)
def test_an_unusable_list_of_json_is_named_with_its_place(tmp_path, content, expected):
    path = write_text(tmp_path / "a.json", content)
    message = error_of(lambda: documents(find_text(path, "text")))
    assert str(path) in message
    assert expected in message


def test_an_incomplete_or_damaged_saved_data_set_is_refused(tmp_path):
    from datasets import Dataset

    Dataset.from_dict({"text": DOCUMENTS}).save_to_disk(tmp_path / "a", num_shards=2)
    first, second = sorted((tmp_path / "a").glob("*.arrow"))
    content = second.read_bytes()
    second.unlink()
    assert f"lacks {second.name}" in error_of(find_text, tmp_path / "a", "text")
    second.write_bytes(content[:100])
    message = error_of(lambda: documents(find_text(tmp_path / "a", "text")))
    assert f"{second} cannot be read: it is not a whole Arrow file" in message
    second.write_bytes(content)
    state = tmp_path / "a" / "state.json"
    saved = json.loads(state.read_text())
    state.write_text(json.dumps({**saved, "_indices_data_files": [{"filename": "indices.arrow"}]}))
    assert "flatten_indices()" in error_of(find_text, tmp_path / "a", "text")
    state.write_text("{")
    assert f"{state} cannot be read" in error_of(find_text, tmp_path / "a", "text")
    assert first.exists()


@pytest.mark.parametrize(("field", "found"), [("n", "'n' holds int64"), ("body", "no field 'body' (fields: text, n)")])
def test_a_saved_data_set_without_that_text_names_its_columns(tmp_path, field, found):
    corpus = find_text(save_to_disk(tmp_path, all=DOCUMENTS[:9]), field)
    for action in (lambda: documents(corpus), lambda: corpus.size):
        assert found in error_of(action)


def test_arrow_files_of_random_access_are_read_too(tmp_path):
    table = pa.table({"text": list(DOCUMENTS)})
    with pa.ipc.new_file(tmp_path / "a.arrow", table.schema) as writer:
        writer.write_table(table, max_chunksize=90)
    other = write_rows(tmp_path / "b" / "a.parquet", {"text": DOCUMENTS})
    assert documents(find_text(tmp_path / "a.arrow", "text")) == documents(find_text(other, "text"))

"""The key of a corpus, which identifies it without reading all of it."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import tasks
from tasks.storage import user_files
from tasks.text.corpus import CorpusTask
from tasks.text.files import find_text
from tests.tasks.text.corpus_files import pages, write_fineweb, write_text, write_wikitext


def test_the_key_changes_with_the_files_and_the_field(tmp_path):
    path = write_text(tmp_path / "all.txt", "some text\n" * 20)
    keys = [find_text(tmp_path, "text").key, find_text(tmp_path, "body").key]
    write_text(path, "same size\n" * 20)
    keys.append(find_text(tmp_path, "text").key)
    write_text(tmp_path / "more.txt", "x")
    keys.append(find_text(tmp_path, "text").key)
    assert len({json.dumps(key) for key in keys}) == 4


def keys(*folders) -> list[str]:
    """The keys that another process computes for folders from an archive that sets the same time everywhere."""
    user_files._content_hash.cache_clear()
    for folder in folders:
        for path in folder.rglob("*.txt"):
            os.utime(path, (1e9, 1e9))
    return [json.dumps(find_text(folder, "text").key) for folder in folders]


@pytest.mark.parametrize("pool", [user_files.MAX_FULL_HASH_BYTES, 1000], ids=["full", "sampled"])
@pytest.mark.parametrize("size", [300, 3_000_000])
def test_the_key_changes_with_content_when_names_sizes_and_times_are_equal(tmp_path, monkeypatch, size, pool):
    monkeypatch.setattr(user_files, "MAX_FULL_HASH_BYTES", pool)
    text = "abc\n" * (size // 4)
    first_sample_end = min(size - 2, user_files.SAMPLE_BYTES - 1)
    places = (0, size // 2 if pool > size else first_sample_end, size - 1)
    for name in ("one", "same"):
        write_text(tmp_path / name / "all.txt", text)
    for place in places:
        write_text(tmp_path / str(place) / "all.txt", f"{text[:place]}#{text[place + 1 :]}")
    one, same, *others = keys(*(tmp_path / str(name) for name in ("one", "same", *places)))
    assert one == same
    assert len({one, *others}) == 4


def test_a_process_reads_a_file_once_for_the_key_until_it_changes(tmp_path, monkeypatch):
    path, opened = write_text(tmp_path / "all.txt", "some text"), []
    real = Path.open

    def recorded_open(file, *arguments, **options):
        opened.append(file)
        return real(file, *arguments, **options)

    monkeypatch.setattr(Path, "open", recorded_open)
    first = find_text(tmp_path, "text").key
    once = list(opened)
    assert set(once) == {path}
    assert find_text(tmp_path, "text").key == first
    assert opened == once
    os.utime(path, (1e9, 1e9))
    assert find_text(tmp_path, "text").key
    assert opened == once * 2


@pytest.mark.parametrize(
    ("name", "write"), [("wikitext2", write_wikitext), ("fineweb-edu", lambda root: write_fineweb(root, pages(20)))]
)
def test_the_keys_of_published_files_also_depend_on_their_content(tmp_path, name, write):
    corpus_keys, sizes = [], []
    for part, other in (("a", False), ("b", True)):
        write(tmp_path / part)
        for path in (tmp_path / part).rglob("*.parquet"):
            table = pq.read_table(path)
            if other:  # the size does not change
                text = [text.replace("e", "f") for text in table["text"].to_pylist()]
                table = table.set_column(0, "text", pa.array(text))
            pq.write_table(table, path, compression="none", use_dictionary=False, write_statistics=False)
            os.utime(path, (1e9, 1e9))
        task = tasks.get(name)(None, tmp_path / part)
        assert isinstance(task, CorpusTask)
        corpus_keys.append(json.dumps(task._corpus.key))
        sizes.append(sorted(path.stat().st_size for path in (tmp_path / part).rglob("*.parquet")))
    assert sizes[0] == sizes[1]
    assert corpus_keys[0] != corpus_keys[1]

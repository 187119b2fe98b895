"""Which documents a corpus has and of which split: folders of text, WikiText's articles, FineWeb's stream."""

from __future__ import annotations

import errno
import io
import itertools
import json
import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import tasks
from tasks import text_files, user_files
from tasks.base import DataError
from tasks.fineweb import WebPages
from tasks.text_files import find_text
from tasks.wikitext import WikiFiles, WikiText103
from tests.tasks.corpus_files import addresses, pages, wiki_rows, write_fineweb, write_lines, write_rows, write_text, write_wikitext


def documents(corpus, state=None) -> dict[str, list[str]]:
    """The documents of every split, put together from their pieces."""
    made: dict[str, list[str]] = {"train": [], "valid": [], "test": []}
    parts: dict[str, str] = dict.fromkeys(made, "")
    for block in corpus.blocks(state):
        for piece in block.pieces:
            parts[piece.split] += piece.text
            if piece.ends:
                made[piece.split].append(parts[piece.split])
                parts[piece.split] = ""
    assert not any(parts.values())
    return made


def pieces(corpus, state=None) -> list[tuple[str, str, bool]]:
    return [(p.split, p.text, p.ends) for block in corpus.blocks(state) for p in block.pieces]


def check_resumes(corpus) -> None:
    """Behind any block the rest is what an uninterrupted reading gives, the state having gone through JSON."""
    blocks = list(corpus.blocks())
    whole = pieces(corpus)
    assert len(blocks) > 2
    for i in {0, 1, len(blocks) // 2, len(blocks) - 2, len(blocks) - 1}:
        read = sum(len(block.pieces) for block in blocks[: i + 1])
        assert pieces(corpus, json.loads(json.dumps(blocks[i].state))) == whole[read:]


# --- folders of text ----------------------------------------------------------------------------------------------------------------


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
def test_files_belong_to_the_split_that_their_name_or_else_their_folder_says(tmp_path, names, splits):
    for i, name in enumerate(names):
        write_text(tmp_path / name, f"text {i}\nits end")
    made = documents(find_text(tmp_path, "text"))
    assert made == {split: [f"text {i}\nits end"] for i, split in enumerate(splits)}


def test_a_name_is_never_a_pattern(tmp_path):
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
    made = documents(find_text(tmp_path, "text"))
    assert made["train"] == [addresses()[0], "one\n\nof two", "two 😀", "three", "", "", "four"]
    assert made["valid"] == ["a\nb\n\n\n c \u2028 d\x0c e"]  # line ends are read as everywhere else; nothing else changes
    assert made["test"] == ["no line end"]


def test_one_file_is_cut_between_lines_at_90_and_95_percent(tmp_path):
    text = "\n".join(pages(500, 97)) + "\n"
    path = write_text(tmp_path / "input.txt", text)
    made = documents(find_text(tmp_path, "text"))
    assert made == documents(find_text(path, "text"))
    [train], [valid], [test] = made["train"], made["valid"], made["test"]
    assert train + valid + test == text
    assert train.endswith("\n")
    assert valid.endswith("\n")
    assert 0 <= len(train.encode()) - 0.9 * len(text.encode()) <= 110
    assert 0 <= len((train + valid).encode()) - 0.95 * len(text.encode()) <= 110


def test_a_field_that_ends_in_the_middle_of_a_file_is_told(tmp_path):
    rows = [{"text": f"page {i}"} for i in range(1000)] + [{"txt": f"page {i}"} for i in range(1500)]
    (tmp_path / "all.jsonl").write_text("\n".join(map(json.dumps, rows)))
    with pytest.raises(DataError, match=r"has no field 'text' from line 1001 on \(there are: txt\)"):
        documents(find_text(tmp_path, "text"))


def test_whole_files_make_blocks_that_end_by_size_too(tmp_path, monkeypatch):
    monkeypatch.setattr(text_files, "BLOCK", 1000)
    for i in range(120):
        write_text(tmp_path / f"{i:03}.txt", "a word " * 40)
    blocks = list(find_text(tmp_path, "text").blocks())
    assert [len(block.pieces) for block in blocks] == [4] * 30
    check_resumes(find_text(tmp_path, "text"))


def test_line_ends_of_two_bytes_change_no_split(tmp_path, monkeypatch):
    text = "\n".join("short" if i % 3 else "" for i in range(4000)) + "\n"
    unix, dos = tmp_path / "unix.txt", tmp_path / "dos.txt"
    unix.write_bytes(text.encode())
    dos.write_bytes(text.replace("\n", "\r\n").encode())
    monkeypatch.setattr(text_files, "CHUNK", 7)  # pairs that a chunk's end parts count too
    made = documents(find_text(unix, "text")), documents(find_text(dos, "text"))
    assert [len("".join(made[1][split])) for split in made[1]] == [len("".join(made[0][split])) for split in made[0]]
    assert made[0]["test"]


def test_rows_are_held_out_by_their_text_alone_about_five_percent_each(tmp_path):
    some = pages(2000, 300)
    write_lines(tmp_path / "a" / "all.jsonl", some)
    write_rows(tmp_path / "b" / "some.parquet", {"text": list(reversed(some[500:]))})
    one, other = (documents(find_text(tmp_path / name, "text")) for name in "ab")
    assert sorted(itertools.chain(*one.values())) == sorted(some)
    assert 60 < len(one["valid"]) < 140
    assert 60 < len(one["test"]) < 140
    for split in ("valid", "test"):
        assert set(other[split]) == set(one[split]) & set(some[500:])


def test_a_hundred_text_files_are_documents_held_out_by_their_text(tmp_path):
    some = pages(400, 100)
    for i, text in enumerate(some):
        write_text(tmp_path / f"{i:03}.txt", text)
    made = documents(find_text(tmp_path, "text"))
    assert sorted(itertools.chain(*made.values())) == sorted(some)
    assert 8 < len(made["valid"]) < 40
    assert 8 < len(made["test"]) < 40


def test_many_text_files_are_gone_on_with_behind_any_block_and_the_one_that_is_no_text_is_named(tmp_path):
    for i in range(350):
        write_text(tmp_path / f"{i:03}.txt", f"{i}\r\nend")
    corpus = find_text(tmp_path, "text")
    check_resumes(corpus)
    assert "7\nend" in documents(corpus)["train"]
    (tmp_path / "207.txt").write_bytes(b"caf\xe9")
    with pytest.raises(DataError, match=r"207\.txt cannot be read: 'utf-8' codec .*; save it as UTF-8") as caught:
        documents(corpus)
    assert "\n" not in str(caught.value)


def test_where_only_one_split_is_missing_it_alone_is_held_out_of_the_training_files(tmp_path):
    write_lines(tmp_path / "train.jsonl", pages(400, 100))
    write_lines(tmp_path / "test.jsonl", ["the test"])
    made = documents(find_text(tmp_path, "text"))
    assert made["test"] == ["the test"]
    assert len(made["train"]) + len(made["valid"]) == 400
    assert 8 < len(made["valid"]) < 40


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
    for field, said in (("text", "has no field 'text' .there are: body, number."), ("number", "holds int in line 1, text is needed")):
        with pytest.raises(DataError, match=said) as caught:
            documents(find_text(tmp_path / "all.jsonl", field))
        assert "\n" not in str(caught.value)
    with pytest.raises(DataError, match=r"has no field 'text' .there are: body, year."):
        documents(find_text(tmp_path / "all.parquet", "text"))


@pytest.mark.parametrize("wrong", [5, ["a"], {"a": "b"}, True])
def test_a_row_whose_text_is_none_is_refused_with_its_file_and_line_and_changes_no_other(tmp_path, wrong):
    rows = [{"text": f"page {i}"} for i in range(300)]
    path = write_text(tmp_path / "all.jsonl", "\n".join(map(json.dumps, [*rows[:150], {"text": wrong}, *rows[150:]])))
    said = rf"all\.jsonl: the field 'text' holds {type(wrong).__name__} in line 151, text is needed; correct the line, or name"
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
        {"text": ["one"], "n": [1]}, {"text": ["two"], "n": [1.5], "more": ["x"]}, {"more": [{"a": 1}], "text": ["three"]},
        {"text": pa.array(["four"], pa.large_string())}, {"text": pa.array(["five"]).dictionary_encode()}, {"text": pa.nulls(1)},
        {"text": pa.array(["six"], pa.string_view())},
    ]  # fmt: skip
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
    assert refused("text", tmp_path) == f"{tmp_path}/valid cannot be read: Permission denied"
    assert refused("text", tmp_path / "valid" / "inner") == f"{tmp_path}/valid/inner cannot be read: Permission denied"


@pytest.mark.parametrize(
    ("name", "later"), [("train.txt", False), ("train.txt", True), ("train.jsonl", False), ("train.jsonl", True), ("train.parquet", False)]
)
def test_a_file_that_cannot_be_read_is_named_and_not_the_cache(tmp_path, monkeypatch, name, later):
    monkeypatch.setenv("SUITE_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "data"
    for part in ("valid", "test"):
        write_text(folder / f"{part}.txt", addresses()[0])
    write = {".txt": lambda p, t: write_text(p, t[0]), ".jsonl": write_lines, ".parquet": lambda p, t: write_rows(p, {"text": t})}
    path = write[Path(name).suffix](folder / name, addresses()[:2])
    task = tasks.get("text")(None, folder)
    if later:  # it could be read when the files were listed
        assert task._cache.needed()
    forbid(monkeypatch, path)
    with pytest.raises(DataError, match=f"^{path} cannot be read: Permission denied$") as caught:
        task.prepare()
    assert "\n" not in str(caught.value)
    assert "cache" not in str(caught.value)


@pytest.mark.parametrize(("name", "place"), [("wikitext2", "wikitext-2-raw-v1"), ("fineweb-edu", "sample/10BT"), ("fineweb-edu", ".")])
def test_a_folder_of_published_text_that_cannot_be_read_is_named(tmp_path, monkeypatch, name, place):
    (tmp_path / place).mkdir(parents=True, exist_ok=True)
    forbid(monkeypatch, tmp_path / place)
    said = refused(name, tmp_path)
    assert said.startswith(f"{tmp_path / place}")
    assert said.endswith(" cannot be read: Permission denied")


def test_the_key_changes_with_the_files_and_the_field(tmp_path):
    path = write_text(tmp_path / "all.txt", "some text\n" * 20)
    keys = [find_text(tmp_path, "text").key, find_text(tmp_path, "body").key]
    write_text(path, "same size\n" * 20)
    keys.append(find_text(tmp_path, "text").key)
    write_text(tmp_path / "more.txt", "x")
    keys.append(find_text(tmp_path, "text").key)
    assert len({json.dumps(key) for key in keys}) == 4


def keys(*folders) -> list[str]:
    """Of folders as an archive leaves them that sets every time alike, as another process sees them."""
    user_files._content_hash.cache_clear()
    for folder in folders:
        for path in folder.rglob("*.txt"):
            os.utime(path, (1e9, 1e9))
    return [json.dumps(find_text(folder, "text").key) for folder in folders]


@pytest.mark.parametrize("pool", [user_files.HASHED_WHOLE, 1000], ids=["whole", "in pieces"])
@pytest.mark.parametrize("size", [300, 3_000_000])
def test_the_key_changes_with_the_content_where_names_sizes_and_times_are_alike(tmp_path, monkeypatch, size, pool):
    monkeypatch.setattr(user_files, "HASHED_WHOLE", pool)
    text = "abc\n" * (size // 4)
    piece = user_files.SAMPLE
    places = (0, size // 2 if pool > size else min(size - 2, piece - 1), size - 1)  # in pieces: where the first one ends
    for name in ("one", "same"):
        write_text(tmp_path / name / "all.txt", text)
    for place in places:
        write_text(tmp_path / str(place) / "all.txt", f"{text[:place]}#{text[place + 1 :]}")
    one, same, *others = keys(*(tmp_path / str(name) for name in ("one", "same", *places)))
    assert one == same
    assert len({one, *others}) == 4


def test_a_process_reads_a_file_once_for_the_key_and_again_when_it_changes(tmp_path, monkeypatch):
    path, opened = write_text(tmp_path / "all.txt", "some text"), []
    real = Path.open
    monkeypatch.setattr(Path, "open", lambda self, *args: (opened.append(self), real(self, *args))[1])
    assert find_text(tmp_path, "text").key == find_text(tmp_path, "text").key
    assert opened == [path]
    os.utime(path, (1e9, 1e9))
    assert find_text(tmp_path, "text").key
    assert opened == [path, path]


@pytest.mark.parametrize(("name", "write"), [("wikitext2", write_wikitext), ("fineweb-edu", lambda root: write_fineweb(root, pages(20)))])
def test_published_files_too_are_told_apart_by_their_content(tmp_path, name, write):
    made, sizes = [], []
    for part, other in (("a", False), ("b", True)):
        write(tmp_path / part)
        for path in (tmp_path / part).rglob("*.parquet"):
            table = pq.read_table(path)
            if other:  # of the same size
                text = [text.replace("e", "f") for text in table["text"].to_pylist()]
                table = table.set_column(0, "text", pa.array(text))
            pq.write_table(table, path, compression="none", use_dictionary=False, write_statistics=False)
            os.utime(path, (1e9, 1e9))
        made.append(json.dumps(tasks.get(name)(None, tmp_path / part)._corpus.key))
        sizes.append(sorted(path.stat().st_size for path in (tmp_path / part).rglob("*.parquet")))
    assert sizes[0] == sizes[1]
    assert made[0] != made[1]


# --- WikiText -----------------------------------------------------------------------------------------------------------------------


def test_articles_begin_at_headings_of_the_first_level_and_keep_every_line(tmp_path):
    rows = ["", " = One = \n", "", " Some text . \n", "", " = = Part = = \n", "", " More = of it = \n"]
    rows += [" = no heading : no empty row before = \n", "", " = Two = \n", "", " x = y \n"]
    path = write_rows(tmp_path / "a.parquet", {"text": rows})
    made = documents(WikiFiles({"train": (path,), "valid": (path,), "test": (path,)}))
    text = "".join(row or "\n" for row in rows)
    assert "".join(made["train"]) == text
    assert made["train"] == [text[: text.index(" = Two")], text[text.index(" = Two") :]]
    assert made["train"] == made["valid"] == made["test"]


def test_articles_that_reach_over_blocks_and_files_are_whole_and_reading_goes_on_behind_any_block(tmp_path):
    rows = wiki_rows(3300)
    rows[999:1003] = ["", " = Article whose empty row ends a block = \n", "", " Some text . \n"]
    paths = tuple(write_rows(tmp_path / f"{n}.parquet", {"text": rows[n * 1650 : (n + 1) * 1650]}, 700) for n in range(2))
    corpus = WikiFiles({"train": paths, "valid": paths[:1], "test": paths[1:]})
    made = documents(corpus)["train"]
    assert "".join(made) == "".join(row or "\n" for row in rows)
    assert len(made) == sum(row.startswith(" = Article") for row in rows)
    check_resumes(corpus)


def test_wikitext103_is_found_in_the_hubs_layout_or_without_its_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(WikiText103, "rows", {"train": 900, "valid": 200, "test": 200})
    write_wikitext(tmp_path, WikiText103)
    names = {path.name for path in (tmp_path / "wikitext-103-raw-v1").iterdir()}
    assert "train-00000-of-00002.parquet" in names
    assert len(names) == 4
    cls = tasks.get("wikitext103")
    for folder in (tmp_path, tmp_path / "wikitext-103-raw-v1"):
        task = cls(cls.Options(tokenizer="bytes", length=32), folder)
        task.prepare()
        assert task.info().splits["train"] > 40_000
    monkeypatch.setattr(WikiText103, "rows", {"train": 901, "valid": 200, "test": 200})
    with pytest.raises(DataError, match="train has 900 rows, the published one 901; your own text: --task text"):
        cls(None, tmp_path).load()


# --- FineWeb-Edu --------------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def web(tmp_path_factory):
    """4,200 documents of which one of training equals one held out."""
    some = list(pages(4200, 150))
    some[2500] = some[3]
    return write_fineweb(tmp_path_factory.mktemp("web"), some), some


def test_the_first_thousand_documents_validate_the_next_test_and_training_has_none_of_them(web):
    folder, some = web
    corpus = tasks.get("fineweb-edu")(None, folder)._open_corpus()
    made = documents(corpus)
    assert made["valid"] == some[:1000]
    assert made["test"] == some[1000:2000]
    assert made["train"] == some[2000:2500] + some[2501:]
    check_resumes(corpus)


def test_more_tokens_go_on_with_the_stream_and_leave_the_held_out_parts_as_they_are(web, tmp_path, monkeypatch):
    monkeypatch.setenv("SUITE_CACHE", str(tmp_path))
    cls, read = tasks.get("fineweb-edu"), []
    blocks = WebPages.blocks
    monkeypatch.setattr(WebPages, "blocks", lambda self, state=None: (read.append(state), blocks(self, state))[1])
    prepared = []
    for tokens in (2000, 200_000):
        task = cls(cls.Options(tokenizer="bytes", tokens=tokens, length=32), web[0])
        task.prepare()
        prepared.append(task)
        assert task.info().splits["train"] == tokens
    assert read[0] is None  # the second time it went on, behind the held-out parts
    assert read[1]["seen"] > 2000
    assert len(list(tmp_path.glob("tokens/*"))) == 1
    small, large = prepared
    assert small.info().extra["documents"] == {"valid": 1000, "test": 1000}
    assert small.fingerprint != large.fingerprint
    with pytest.raises(DataError, match=r"there are 33\d,\d+ training tokens, 400,000 were asked for; --set tokens=33\d+"):
        cls(cls.Options(tokenizer="bytes", tokens=400_000, length=32), web[0]).load()
    first = np.array([0])
    assert small._cache.files["train"].windows(first, 2001).tolist() == large._cache.files["train"].windows(first, 2001).tolist()


@pytest.mark.parametrize("name", ["wikitext2", "fineweb-edu"])
def test_with_neither_files_nor_network_it_is_one_line_and_info_tells_what_to_do(name, monkeypatch):
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
    task = tasks.get(name)()
    with pytest.raises(DataError, match=r"the hub's .*--data-dir DIR") as caught:
        task.load()
    assert "\n" not in str(caught.value)
    assert " MB " in tasks.get(name)().prepare_note()  # told before anything is asked for
    info = tasks.get(name)().info()
    assert info.fingerprint == ""
    assert any("--data-dir DIR" in note for note in info.notes)

"""Published text: WikiText's articles and FineWeb's stream."""

from __future__ import annotations

import numpy as np
import pytest

import tasks
from tasks.text.fineweb import FinewebEdu, FinewebOptions, WebPages
from tasks.text.wikitext import WikiFiles, WikiText103, WikiTextOptions
from tests.tasks.errors import error_of
from tests.tasks.text.corpus_files import pages, wiki_rows, write_fineweb, write_rows, write_wikitext
from tests.tasks.text.corpus_reading import check_resumes, documents

# --- WikiText


def test_articles_begin_at_headings_of_the_first_level_and_keep_every_line(tmp_path):
    rows = ["", " = One = \n", "", " Some text . \n", "", " = = Part = = \n", "", " More = of it = \n"]
    rows += [" = no heading : no empty row before = \n", "", " = Two = \n", "", " x = y \n"]
    path = write_rows(tmp_path / "a.parquet", {"text": rows})
    by_split = documents(WikiFiles({"train": (path,), "valid": (path,), "test": (path,)}))
    text = "".join(row or "\n" for row in rows)
    assert "".join(by_split["train"]) == text
    assert by_split["train"] == [text[: text.index(" = Two")], text[text.index(" = Two") :]]
    assert by_split["train"] == by_split["valid"] == by_split["test"]


def test_articles_across_blocks_and_files_are_complete_and_reading_resumes(tmp_path):
    rows = wiki_rows(3300)
    rows[999:1003] = ["", " = Article whose empty row ends a block = \n", "", " Some text . \n"]
    paths = tuple(
        write_rows(tmp_path / f"{n}.parquet", {"text": rows[n * 1650 : (n + 1) * 1650]}, 700) for n in range(2)
    )
    corpus = WikiFiles({"train": paths, "valid": paths[:1], "test": paths[1:]})
    articles = documents(corpus)["train"]
    assert "".join(articles) == "".join(row or "\n" for row in rows)
    assert len(articles) == sum(row.startswith(" = Article") for row in rows)
    check_resumes(corpus)


def test_wikitext103_is_found_with_or_without_the_hubs_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(WikiText103, "rows", {"train": 900, "valid": 200, "test": 200})
    write_wikitext(tmp_path, WikiText103)
    names = {path.name for path in (tmp_path / "wikitext-103-raw-v1").iterdir()}
    assert "train-00000-of-00002.parquet" in names
    assert len(names) == 4
    for folder in (tmp_path, tmp_path / "wikitext-103-raw-v1"):
        task = WikiText103(WikiTextOptions(tokenizer="bytes", length=32), folder)
        task.prepare()
        assert task.info().splits["train"] > 40_000
    monkeypatch.setattr(WikiText103, "rows", {"train": 901, "valid": 200, "test": 200})
    message = error_of(WikiText103(None, tmp_path).load)
    assert "900 rows" in message
    assert "901" in message
    assert "--task text" in message


# --- FineWeb-Edu


@pytest.fixture(scope="module")
def web(tmp_path_factory):
    """4,200 documents, of which one training document is a copy of a held-out one."""
    some = list(pages(4200, 150))
    some[2500] = some[3]
    return write_fineweb(tmp_path_factory.mktemp("web"), some), some


def test_the_first_two_thousand_documents_are_held_out_and_not_used_for_training(web):
    folder, some = web
    corpus = FinewebEdu(None, folder)._open_corpus()
    by_split = documents(corpus)
    assert by_split["valid"] == some[:1000]
    assert by_split["test"] == some[1000:2000]
    assert by_split["train"] == some[2000:2500] + some[2501:]
    check_resumes(corpus)


def test_more_tokens_resume_the_stream_and_leave_the_held_out_parts_unchanged(web, tmp_path, monkeypatch):
    monkeypatch.setenv("SUITE_CACHE", str(tmp_path))
    states, blocks = [], WebPages.blocks

    def recorded_blocks(corpus, state=None):
        states.append(state)
        return blocks(corpus, state)

    def task_of(tokens: int) -> FinewebEdu:
        return FinewebEdu(FinewebOptions(tokenizer="bytes", tokens=tokens, length=32), web[0])

    monkeypatch.setattr(WebPages, "blocks", recorded_blocks)
    prepared = []
    for tokens in (2000, 200_000):
        task = task_of(tokens)
        task.prepare()
        prepared.append(task)
        assert task.info().splits["train"] == tokens
    assert states[0] is None
    assert states[1]["seen"] > 2000  # the second time it resumed after the held-out parts
    assert len(list(tmp_path.glob("tokens/*"))) == 1
    small, large = prepared
    assert small.info().extra["documents"] == {"valid": 1000, "test": 1000}
    assert small.fingerprint != large.fingerprint
    message = error_of(task_of(400_000).load)
    assert "tokens=400,000" in message
    assert "--set tokens=33" in message
    first, second = (task._cache.files["train"].windows(np.array([0]), 2001) for task in prepared)
    assert first.tolist() == second.tolist()


@pytest.mark.parametrize("name", ["wikitext2", "fineweb-edu"])
def test_without_files_and_network_error_and_info_suggest_data_dir(name, monkeypatch):
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
    assert "--data-dir DIR" in error_of(tasks.get(name)().load)
    assert " MB " in tasks.get(name)().prepare_note()  # reported before anything is requested
    info = tasks.get(name)().info()
    assert info.fingerprint == ""
    assert any("--data-dir DIR" in note for note in info.notes)

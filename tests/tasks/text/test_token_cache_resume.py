"""Token files after an interruption: resumed at the exact document, extended, and refused if they lost tokens."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tasks.text import token_cache
from tasks.text.token_cache import SPLITS, TokenCache
from tasks.text.tokenizers import ByteTokenizer
from tests.tasks.errors import error_of
from tests.tasks.text.corpus_reading import Document, ListedCorpus, byte_tokens, held_out_first, listed_pages, tokens_of


@pytest.fixture
def documents() -> list[Document]:
    return listed_pages()


@pytest.mark.parametrize("broken", [0, 1, 17, 39])
def test_an_interrupted_build_resumes_at_the_exact_document(tmp_path, documents, monkeypatch, broken):
    monkeypatch.setattr(token_cache, "COMMIT_BYTES", 1000)  # every few documents
    uninterrupted = TokenCache(tmp_path / "uninterrupted", ListedCorpus(documents), ByteTokenizer())
    uninterrupted.folder.mkdir()
    failing = TokenCache(tmp_path, ListedCorpus(documents, broken=broken), ByteTokenizer())
    assert error_of(failing.open) == "the network is gone"
    for split in SPLITS:  # a killed process leaves tokens that it had not committed
        with open(tmp_path / f"{split}.bin", "ab") as file:
            file.write(b"\x07" * 999)
    corpus = ListedCorpus(documents)
    resumed = TokenCache(tmp_path, corpus, ByteTokenizer())
    assert resumed.open().fingerprints == uninterrupted.open().fingerprints
    for split in SPLITS:
        assert tokens_of(resumed, split) == byte_tokens(documents, split)
    assert corpus.read <= len(documents) - broken + 7  # it did not start from scratch
    assert (corpus.read == len(documents)) == (broken <= 1)


def limited(folder: Path, documents: list[Document], limit: int) -> tuple[TokenCache, ListedCorpus]:
    """A cache that uses `limit` training tokens, and its corpus."""
    corpus = ListedCorpus(held_out_first(documents), held_out_first=True)
    return TokenCache(folder, corpus, ByteTokenizer(), limit), corpus


def test_a_stream_is_read_up_to_the_limit_and_extended_from_there(tmp_path, documents):
    expected = byte_tokens(documents, "train")
    small, small_corpus = limited(tmp_path, documents, 500)
    first = small.open()
    assert tokens_of(small, "train") == expected[:501]
    assert small_corpus.read < len(documents)
    large, large_corpus = limited(tmp_path, documents, 1500)
    second = large.open()
    assert tokens_of(large, "train") == expected[:1501]
    assert small_corpus.read + large_corpus.read < len(documents)
    again, unread_corpus = limited(tmp_path, documents, 500)
    assert again.open().fingerprints["500"] == first.fingerprints["500"] != second.fingerprints["1500"]
    assert unread_corpus.read == 0
    assert again.digest() == first.fingerprints["500"]


def test_damaged_token_files_and_a_damaged_state_are_refused(tmp_path, documents):
    TokenCache(tmp_path, ListedCorpus(documents), ByteTokenizer()).open()
    for name, content in (("train.bin", "short"), ("state.json", "{")):
        (tmp_path / name).write_text(content)
        message = error_of(TokenCache(tmp_path, ListedCorpus(documents), ByteTokenizer()).open)
        for part in (str(tmp_path / name), "damaged", "delete"):
            assert part in message


def damage(path: Path, how: str) -> None:
    if how == "deleted":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:-2])


@pytest.mark.parametrize("how", ["deleted", "shortened"])
@pytest.mark.parametrize("split", ["train", "valid"])
def test_an_interrupted_build_that_lost_tokens_is_refused_unchanged(tmp_path, documents, monkeypatch, how, split):
    monkeypatch.setattr(token_cache, "COMMIT_BYTES", 1000)
    failing = TokenCache(tmp_path, ListedCorpus(documents, broken=30), ByteTokenizer())
    assert error_of(failing.open) == "the network is gone"
    state = json.loads((tmp_path / "state.json").read_text())
    path = tmp_path / f"{split}.bin"
    with open(path, "rb+") as file:
        file.truncate(2 * state["counts"][split]["tokens"])  # without what was not committed
    damage(path, how)
    before = {path.name: path.stat().st_size for path in tmp_path.iterdir()}
    message = error_of(TokenCache(tmp_path, ListedCorpus(documents), ByteTokenizer()).open)
    for part in (str(path), "damaged", f"delete {tmp_path}"):
        assert part in message
    assert {path.name: path.stat().st_size for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize("how", ["deleted", "shortened"])
def test_a_stream_that_lost_tokens_is_not_extended(tmp_path, documents, how):
    limited(tmp_path, documents, 500)[0].open()
    damage(tmp_path / "test.bin", how)
    assert str(tmp_path / "test.bin") in error_of(limited(tmp_path, documents, 1500)[0].open)

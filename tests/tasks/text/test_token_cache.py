"""The token files: their content, their fingerprint, built once, usable without write permission."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
from collections import namedtuple
from dataclasses import asdict

import pytest

from tasks.text.token_cache import SPLITS, TokenCache
from tasks.text.tokenizers import BpeTokenizer, ByteTokenizer, byte_letters, train_bpe
from tests.tasks.errors import error_of
from tests.tasks.text.corpus_files import pages, write_lines
from tests.tasks.text.corpus_reading import Document, ListedCorpus, byte_tokens, held_out_first, listed_pages, tokens_of


@pytest.fixture
def documents() -> list[Document]:
    return listed_pages()


def test_each_split_is_its_documents_with_an_end_before_the_first_and_after_each(tmp_path, documents):
    tokens = TokenCache(tmp_path, ListedCorpus(documents), ByteTokenizer())
    state = tokens.open()
    for split in SPLITS:
        assert tokens_of(tokens, split) == byte_tokens(documents, split)
        assert state.counts[split].documents == sum(s == split for s, _ in documents)
        assert state.counts[split].bytes == sum(len(text) for s, text in documents if s == split)


def test_a_cache_is_built_once_and_then_opened(tmp_path, documents):
    corpus = ListedCorpus(documents)
    first = TokenCache(tmp_path, ListedCorpus(documents), ByteTokenizer())
    second = TokenCache(tmp_path, corpus, ByteTokenizer())
    assert first.bytes_needed() > 0
    fingerprints = first.open().fingerprints
    assert second.bytes_needed() == 0
    assert second.open().fingerprints == fingerprints
    assert (first.built, second.built) == (True, False)
    assert corpus.read == 0


def test_the_fingerprint_depends_on_the_tokens_and_the_tokenizer(tmp_path, documents):
    def fingerprint(listed, tokenizer, name: str) -> str:
        (tmp_path / name).mkdir()
        return TokenCache(tmp_path / name, ListedCorpus(listed), tokenizer).open().fingerprints["all"]

    one = fingerprint(documents, ByteTokenizer(), "a")
    changed = [*documents[:-1], (documents[-1][0], documents[-1][1][:-1] + "~")]
    assert fingerprint(changed, ByteTokenizer(), "b") != one
    content = json.loads(train_bpe([documents[0][1]], 300))
    first, second = (letter for letter, byte in byte_letters().items() if byte in (1, 2))  # bytes that no text has
    vocab = content["model"]["vocab"]
    swapped = {**vocab, first: vocab[second], second: vocab[first]}
    other = {**content, "model": {**content["model"], "vocab": swapped}}
    by_bpe = [
        fingerprint(documents, BpeTokenizer(json.dumps(definition), 300), name)
        for definition, name in ((content, "c"), (other, "d"))
    ]
    assert len({one, *by_bpe}) == 3


def test_a_vocabulary_beyond_sixteen_bits_is_stored_in_thirty_two(tmp_path, documents):
    tokens = TokenCache(tmp_path, ListedCorpus(documents), BpeTokenizer(train_bpe(["aa"], 300), 70_000))
    assert tokens.open().dtype == "<u4"
    assert tokens_of(tokens, "train")[0] == 69_999


def test_the_state_on_disk_is_plain_json(tmp_path, documents):
    state = TokenCache(tmp_path, ListedCorpus(documents), ByteTokenizer()).open()
    assert json.loads((tmp_path / "state.json").read_text()) == json.loads(json.dumps(asdict(state)))


def refuse(*args, **kwargs) -> None:
    """What the system does in a read-only folder: permissions would not stop root."""
    raise PermissionError(errno.EACCES, "Permission denied")


@pytest.mark.parametrize(
    "place", ["filelock.FileLock.acquire", "tasks.text.token_cache.open", "tasks.storage.cache.write_atomically"]
)
def test_a_cache_that_cannot_be_written_is_reported_with_its_folder(tmp_path, documents, monkeypatch, place):
    monkeypatch.setattr(place, refuse, raising=False)
    message = error_of(TokenCache(tmp_path, ListedCorpus(documents), ByteTokenizer()).open)
    for part in (f"{tmp_path} ", "Permission denied", "set SUITE_CACHE"):
        assert part in message


def test_a_built_cache_can_be_used_without_write_permission(tmp_path, documents, monkeypatch):
    def token_cache(limit: int) -> tuple[TokenCache, ListedCorpus]:
        corpus = ListedCorpus(held_out_first(documents), held_out_first=True)
        return TokenCache(tmp_path, corpus, ByteTokenizer(), limit), corpus

    built, _ = token_cache(1500)
    built.open()
    for place in ("filelock.FileLock.acquire", "tasks.storage.cache.write_atomically"):
        with monkeypatch.context() as patched:
            patched.setattr(place, refuse)
            for limit in (1500, 500):  # the fingerprint of 500 is not yet on disk
                reader, corpus = token_cache(limit)
                assert reader.open().fingerprints[str(limit)] == reader.digest()
                assert tokens_of(reader, "train") == tokens_of(built, "train")[: limit + 1]
                assert (reader.built, corpus.read) == (False, 0)
    assert "500" not in json.loads((tmp_path / "state.json").read_text())["fingerprints"]
    token_cache(500)[0].open()
    assert "500" in json.loads((tmp_path / "state.json").read_text())["fingerprints"]


def test_a_full_disk_is_reported_before_anything_is_written(tmp_path, documents, monkeypatch):
    tokens = TokenCache(tmp_path, ListedCorpus(documents), ByteTokenizer())
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**9, 10**9, 2 * tokens.corpus.size))
    message = error_of(tokens.open)
    for part in (str(tmp_path), " MB free", "set SUITE_CACHE"):
        assert part in message
    assert not list(tmp_path.glob("*.bin"))


TWO = """
import json, sys
from pathlib import Path
import datasets, tasks
task = tasks.get("text")(tasks.get("text").Options(tokenizer="bpe", vocab=300), Path(sys.argv[1]))
print("ready", flush=True)
sys.stdin.readline()
task.prepare()
print(json.dumps([task._cache.built, task.fingerprint]))
"""


@pytest.mark.slow
def test_two_processes_at_once_build_one_cache_once(tmp_path):
    write_lines(tmp_path / "data" / "pages.jsonl", pages(500))
    environment = {**os.environ, "SUITE_CACHE": str(tmp_path / "cache")}
    command = [sys.executable, "-c", TWO, str(tmp_path / "data")]
    pipe = subprocess.PIPE
    both = [subprocess.Popen(command, env=environment, stdin=pipe, stdout=pipe, text=True) for _ in range(2)]
    for process in both:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in both:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    results = [json.loads(process.communicate(timeout=300)[0]) for process in both]
    assert sorted(built for built, _ in results) == [False, True]
    assert results[0][1] == results[1][1]
    assert len(list((tmp_path / "cache" / "tokenizers").glob("*.json"))) == 1


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("limit", [0, 200])
def test_tokens_that_are_not_those_that_were_written_are_refused(tmp_path, documents, split, limit):
    TokenCache(tmp_path, ListedCorpus(documents), ByteTokenizer(), limit).open()
    path = tmp_path / f"{split}.bin"
    changed, at = bytearray(path.read_bytes()), path.stat()
    changed[100] ^= 1
    path.write_bytes(changed)
    os.utime(path, ns=(at.st_atime_ns, at.st_mtime_ns))
    message = error_of(TokenCache(tmp_path, ListedCorpus(documents), ByteTokenizer(), limit).open)
    for part in (str(tmp_path), "damaged", "delete that folder"):
        assert part in message

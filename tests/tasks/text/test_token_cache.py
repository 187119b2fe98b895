"""The token files: built once, gone on with at the exact document, read without filling the memory."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from collections import namedtuple
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from tasks.base import DataError
from tasks.storage import cache
from tasks.text import token_cache
from tasks.text.documents import Block, Corpus, Piece
from tasks.text.token_cache import TokenCache, TokenFile
from tasks.text.tokenizers import BpeTokenizer, ByteTokenizer, byte_letters, train_bpe
from tests.tasks.text.corpus_files import pages, write_lines, write_rows

END = 256
ORDER = ("valid", "test", "train", "train")


class Listed(Corpus):
    """Documents in memory, one a block; breaks where it is told to."""

    key, size, held_out_first = {}, 0, False

    def __init__(
        self, documents: list[tuple[str, str]], *, held_out_first: bool = False, broken: int | None = None
    ) -> None:
        self.documents, self.held_out_first, self.broken, self.read = documents, held_out_first, broken, 0
        self.size = sum(len(text) for _, text in documents)

    def blocks(self, state=None):
        for i in range(state["next"] if state else 0, len(self.documents)):
            if i == self.broken:
                raise DataError("the network is gone")
            split, text = self.documents[i]
            self.read += 1
            yield Block([Piece(split, text[:3], False), Piece(split, text[3:], True)], {"next": i + 1})


@pytest.fixture
def documents() -> list[tuple[str, str]]:
    return [(ORDER[i % 4], f"{i}: {page}") for i, page in enumerate(pages(40, 200))]


def expected(documents, split: str) -> list[int]:
    return [END, *(token for s, text in documents if s == split for token in [*text.encode(), END])]


def tokens(made: TokenCache, split: str) -> list[int]:
    return made.files[split].windows(np.array([0]), made.length(split))[0].tolist()


def test_every_split_is_its_documents_with_an_end_before_the_first_and_behind_each(tmp_path, documents):
    made = TokenCache(tmp_path, Listed(documents), ByteTokenizer())
    state = made.open()
    for split in ("train", "valid", "test"):
        assert tokens(made, split) == expected(documents, split)
        assert state.counts[split].documents == sum(s == split for s, _ in documents)
        assert state.counts[split].bytes == sum(len(text) for s, text in documents if s == split)


def test_it_is_built_once_and_opened_after(tmp_path, documents):
    first, second = (TokenCache(tmp_path, Listed(documents), ByteTokenizer()) for _ in range(2))
    assert first.needed() > 0
    fingerprints = first.open().fingerprints
    assert second.needed() == 0
    assert second.open().fingerprints == fingerprints
    assert (first.built, second.built) == (True, False)
    assert second.corpus.read == 0


@pytest.mark.parametrize("broken", [0, 1, 17, 39])
def test_what_broke_off_goes_on_at_the_exact_document(tmp_path, documents, monkeypatch, broken):
    monkeypatch.setattr(token_cache, "COMMIT_BYTES", 1000)  # every few documents
    whole = TokenCache(tmp_path / "whole", Listed(documents), ByteTokenizer())
    whole.folder.mkdir()
    with pytest.raises(DataError, match="the network is gone"):
        TokenCache(tmp_path, Listed(documents, broken=broken), ByteTokenizer()).open()
    for split in ("train", "valid", "test"):  # a killed process leaves what it had not committed
        with open(tmp_path / f"{split}.bin", "ab") as file:
            file.write(b"\x07" * 999)
    made = TokenCache(tmp_path, Listed(documents), ByteTokenizer())
    assert made.open().fingerprints == whole.open().fingerprints
    for split in ("train", "valid", "test"):
        assert tokens(made, split) == expected(documents, split)
    assert made.corpus.read <= len(documents) - broken + 7  # it did not start anew
    assert (made.corpus.read == len(documents)) == (broken <= 1)


def test_a_stream_is_read_as_far_as_asked_and_goes_on_from_there(tmp_path, documents):
    held_first = sorted(documents, key=lambda pair: pair[0] == "train")
    every = expected(documents, "train")
    small, large = (
        TokenCache(tmp_path, Listed(held_first, held_out_first=True), ByteTokenizer(), limit) for limit in (500, 1500)
    )
    first = small.open()
    assert tokens(small, "train") == every[:501]
    assert small.corpus.read < len(documents)
    second = large.open()
    assert tokens(large, "train") == every[:1501]
    assert small.corpus.read + large.corpus.read < len(documents)
    again = TokenCache(tmp_path, Listed(held_first, held_out_first=True), ByteTokenizer(), 500)
    assert again.open().fingerprints["500"] == first.fingerprints["500"] != second.fingerprints["1500"]
    assert again.corpus.read == 0
    assert again.digest() == first.fingerprints["500"]


def test_the_fingerprint_is_of_the_tokens_and_the_tokenizer(tmp_path, documents):
    def of(listed, tokenizer, name: str) -> str:
        (tmp_path / name).mkdir()
        return TokenCache(tmp_path / name, Listed(listed), tokenizer).open().fingerprints["all"]

    one = of(documents, ByteTokenizer(), "a")
    assert of([*documents[:-1], (documents[-1][0], documents[-1][1][:-1] + "~")], ByteTokenizer(), "b") != one
    content = json.loads(train_bpe([documents[0][1]], 300))
    first, second = (letter for letter, byte in byte_letters().items() if byte in (1, 2))  # bytes that no text has
    vocab = content["model"]["vocab"]
    swapped = {**vocab, first: vocab[second], second: vocab[first]}
    other = {**content, "model": {**content["model"], "vocab": swapped}}
    assert (
        len(
            {
                one,
                *(
                    of(documents, BpeTokenizer(json.dumps(made), 300), name)
                    for made, name in ((content, "c"), (other, "d"))
                ),
            }
        )
        == 3
    )


def test_tokens_beyond_sixteen_bits_take_thirty_two(tmp_path, documents):
    made = TokenCache(tmp_path, Listed(documents), BpeTokenizer(train_bpe(["aa"], 300), 70_000))
    assert made.open().dtype == "<u4"
    assert tokens(made, "train")[0] == 69_999


def test_what_is_damaged_is_refused_in_one_line(tmp_path, documents):
    made = TokenCache(tmp_path, Listed(documents), ByteTokenizer())
    made.open()
    (tmp_path / "train.bin").write_bytes(b"short")
    with pytest.raises(DataError, match=r"train\.bin is shorter than .* delete"):
        TokenCache(tmp_path, Listed(documents), ByteTokenizer()).open()
    (tmp_path / "state.json").write_text("{")
    with pytest.raises(DataError, match="is damaged"):
        TokenCache(tmp_path, Listed(documents), ByteTokenizer()).open()


def harm(path: Path, how: str) -> None:
    if how == "gone":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:-2])


@pytest.mark.parametrize("how", ["gone", "shorter"])
@pytest.mark.parametrize("split", ["train", "valid"])
def test_what_broke_off_and_then_lost_tokens_is_refused_and_left_as_it_is(tmp_path, documents, monkeypatch, how, split):
    monkeypatch.setattr(token_cache, "COMMIT_BYTES", 1000)
    with pytest.raises(DataError, match="the network is gone"):
        TokenCache(tmp_path, Listed(documents, broken=30), ByteTokenizer()).open()
    state = json.loads((tmp_path / "state.json").read_text())
    with open(tmp_path / f"{split}.bin", "rb+") as file:
        file.truncate(2 * state["counts"][split]["tokens"])  # what was not committed is no matter
    harm(tmp_path / f"{split}.bin", how)
    left = {path.name: path.stat().st_size for path in tmp_path.iterdir()}
    with pytest.raises(
        DataError, match=rf"{split}\.bin is shorter than the [\d,]+ tokens it should have; delete .* and try again"
    ):
        TokenCache(tmp_path, Listed(documents), ByteTokenizer()).open()
    assert {path.name: path.stat().st_size for path in tmp_path.iterdir()} == left


@pytest.mark.parametrize("how", ["gone", "shorter"])
def test_a_stream_that_lost_tokens_does_not_go_on(tmp_path, documents, how):
    held_first = sorted(documents, key=lambda pair: pair[0] == "train")
    TokenCache(tmp_path, Listed(held_first, held_out_first=True), ByteTokenizer(), 500).open()
    harm(tmp_path / "test.bin", how)
    with pytest.raises(DataError, match=r"test\.bin is shorter than"):
        TokenCache(tmp_path, Listed(held_first, held_out_first=True), ByteTokenizer(), 1500).open()


def refuse(*args, **kwargs) -> None:
    """As the system does where only reading is allowed: its rights do not hold for every user."""
    raise PermissionError(errno.EACCES, "Permission denied")


def test_a_cache_that_cannot_be_written_is_one_line_at_whatever_place(tmp_path, documents, monkeypatch):
    for place in ("filelock.FileLock.acquire", "tasks.text.token_cache.open", "tasks.storage.cache.write_atomically"):
        with monkeypatch.context() as patched:
            patched.setattr(place, refuse, raising=False)
            with pytest.raises(
                DataError, match=f"the cache folder {tmp_path} cannot be written .Permission denied.; set SUITE_CACHE"
            ) as caught:
                TokenCache(tmp_path, Listed(documents), ByteTokenizer()).open()
            assert "\n" not in str(caught.value)


def test_a_lock_in_what_is_no_folder_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(DataError, match=r"/file cannot be written .*; set SUITE_CACHE"),
        cache.lock(tmp_path / "file" / "lock"),
    ):
        raise AssertionError


def test_a_lock_passes_on_what_goes_wrong_while_it_is_held_and_is_free_after(tmp_path):
    with pytest.raises(OSError, match="of the body"), cache.lock(tmp_path / "lock"):
        raise OSError("of the body")
    with cache.lock(tmp_path / "lock"):
        pass


def test_a_built_cache_serves_whoever_may_only_read_it(tmp_path, documents, monkeypatch):
    held_first = sorted(documents, key=lambda pair: pair[0] == "train")

    def listed() -> Listed:
        return Listed(held_first, held_out_first=True)

    built = TokenCache(tmp_path, listed(), ByteTokenizer(), 1500)
    built.open()
    for place in ("filelock.FileLock.acquire", "tasks.storage.cache.write_atomically"):
        with monkeypatch.context() as patched:
            patched.setattr(place, refuse)
            for limit in (1500, 500):  # of 500 no fingerprint has been written
                reader = TokenCache(tmp_path, listed(), ByteTokenizer(), limit)
                assert reader.open().fingerprints[str(limit)] == reader.digest()
                assert tokens(reader, "train") == tokens(built, "train")[: limit + 1]
                assert (reader.built, reader.corpus.read) == (False, 0)
    assert "500" not in json.loads((tmp_path / "state.json").read_text())["fingerprints"]
    TokenCache(tmp_path, listed(), ByteTokenizer(), 500).open()
    assert "500" in json.loads((tmp_path / "state.json").read_text())["fingerprints"]


def test_a_full_disk_is_told_before_anything_is_written(tmp_path, documents, monkeypatch):
    made = TokenCache(tmp_path, Listed(documents), ByteTokenizer())
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(cache.shutil, "disk_usage", lambda path: usage(10**9, 10**9, 2 * made.corpus.size))
    with pytest.raises(DataError, match=r"the token cache takes about .* MB left"):
        made.open()
    assert not list(tmp_path.glob("*.bin"))


def test_windows_are_what_stands_in_the_file_and_are_padded_behind_its_end(tmp_path):
    values = np.arange(1000, dtype="<u2")
    (tmp_path / "a.bin").write_bytes(values.tobytes() + b"more")
    file = TokenFile(tmp_path / "a.bin", "<u2", 1000)
    made = file.windows(np.array([0, 37, 995]), 8)
    assert made.tolist() == [list(range(8)), list(range(37, 45)), [*range(995, 1000), -1, -1, -1]]


TWO = """
import json, sys
from pathlib import Path
import datasets, tasks
task = tasks.get("text")(tasks.get("text").Options(tokenizer="bpe", vocab=300), Path(sys.argv[1]))
print("here", flush=True)
sys.stdin.readline()
task.prepare()
print(json.dumps([task._cache.built, task.fingerprint]))
"""


@pytest.mark.slow
def test_two_processes_at_once_build_one_cache_once(tmp_path):
    write_lines(tmp_path / "data" / "pages.jsonl", pages(500))
    environment = {**os.environ, "SUITE_CACHE": str(tmp_path / "cache")}
    command = [sys.executable, "-c", TWO, str(tmp_path / "data")]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    both = [subprocess.Popen(command, env=environment, **pipes) for _ in range(2)]
    assert [process.stdout.readline() for process in both] == ["here\n", "here\n"]
    for process in both:
        process.stdin.write("go\n")
        process.stdin.flush()
    told = [json.loads(process.communicate(timeout=300)[0]) for process in both]
    assert sorted(built for built, _ in told) == [False, True]
    assert told[0][1] == told[1][1]
    assert len(list((tmp_path / "cache" / "tokenizers").glob("*.json"))) == 1


PEAK = """
import sys
def peak():  # in MB; getrusage's would be that of the process that started this one, where that is larger
    [line] = [line for line in open("/proc/self/status") if line.startswith("VmHWM")]
    return int(line.split()[1]) // 1024
"""
MEMORY = f"""{PEAK}
from pathlib import Path
import numpy as np
from tasks.text.token_cache import TokenFile
file = TokenFile(Path(sys.argv[1]), "<u2", int(sys.argv[2]))
rng = np.random.default_rng(0)
before = peak()
for _ in range(1500):
    file.windows(rng.integers(0, file.length - 1025, 128), 1025)
print(peak() - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_reading_all_over_a_large_file_leaves_the_memory_as_it_was(tmp_path):
    """400 MB of tokens, every page of them touched about once."""
    path = tmp_path / "a.bin"
    with open(path, "wb") as file:
        for _ in range(50):
            file.write(bytes(8 * 2**20))
    done = subprocess.run(
        [sys.executable, "-c", MEMORY, str(path), str(200 * 2**20)], capture_output=True, text=True, check=True
    )
    assert int(done.stdout) < 60, done.stdout


BUILD = f"""{PEAK}
from pathlib import Path
import tasks
cls = tasks.get("text")
cls(cls.Options(tokenizer=sys.argv[2]), Path(sys.argv[1])).prepare()
print(peak())
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_building_from_a_corpus_eight_times_as_large_takes_no_more_memory(tmp_path):
    peaks = []
    for times in (1, 8):
        folder = tmp_path / str(times)
        for n in range(times):
            write_rows(folder / f"{n}.parquet", {"text": [f"{n} {page}" for page in pages(4000, 2500)]}, 200)
        environment = {**os.environ, "SUITE_CACHE": str(tmp_path / f"cache{times}")}
        done = subprocess.run(
            [sys.executable, "-c", BUILD, str(folder), "bytes"],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        )
        peaks.append(int(done.stdout))
    assert peaks[1] - peaks[0] < 40, peaks  # MB; the text grew by 70


def test_the_state_on_disk_is_plain_json(tmp_path, documents):
    made = TokenCache(tmp_path, Listed(documents), ByteTokenizer())
    state = made.open()
    assert json.loads(Path(tmp_path / "state.json").read_text()) == json.loads(json.dumps(asdict(state)))

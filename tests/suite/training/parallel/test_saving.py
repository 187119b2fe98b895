"""A checkpoint that one rank cannot write: all ranks have the same exchanges, and all raise."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from suite.training import checkpoint
from suite.training.parallel import saving, shards
from suite.training.parallel.ranks import Ranks
from suite.training.parallel.trainer import ParallelTrainer

WORLD = 3


class Threads(Ranks):
    """A rank that is a thread of this process."""

    def __init__(self, rank: int, values: list[Any], barrier: threading.Barrier) -> None:
        super().__init__(rank, WORLD)
        self.values, self.barrier = values, barrier

    def gather(self, value: Any) -> list[Any]:
        self.values[self.rank] = value
        self.barrier.wait(10)
        every = list(self.values)
        self.barrier.wait(10)
        return every


def save(run_dir, content: dict[str, Any]) -> list[str]:
    """What each rank ends with."""
    values, barrier, ends = [None] * WORLD, threading.Barrier(WORLD), [""] * WORLD

    def part(rank: int) -> None:
        try:
            saving.save(run_dir, content, {}, Threads(rank, values, barrier))
            ends[rank] = "saved"
        except Exception as problem:
            ends[rank] = f"{type(problem).__name__}: {problem}"

    threads = [threading.Thread(target=part, args=(rank,)) for rank in range(WORLD)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    return ends


@pytest.fixture
def content(monkeypatch, tmp_path) -> dict[str, Any]:
    """Of a step; the ranks' files are folders with a text."""

    def write(folder, _: object, rank: int) -> dict[str, str]:
        folder.mkdir(exist_ok=True)
        (folder / str(rank)).write_text("tensors")
        return {str(rank): "sha256"}

    monkeypatch.setattr(shards, "write", write)
    return {"step": 4, "best": {"step": 4}}


def test_all_ranks_save_one_checkpoint(content, tmp_path):
    assert save(tmp_path, content) == ["saved"] * WORLD
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-0000000004.dcp"]


@pytest.mark.parametrize("rank", range(WORLD))
def test_a_rank_that_cannot_write_stops_all(content, tmp_path, monkeypatch, rank):
    written = shards.write

    def write(folder, tensors, number):
        if number == rank:
            raise OSError(28, "No space left on device")
        return written(folder, tensors, number)

    monkeypatch.setattr(shards, "write", write)
    assert save(tmp_path, content) == ["OSError: disk full: No space left on device"] * WORLD
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["delete_leftovers", "write"])
def test_what_rank_0_alone_does_stops_all(content, tmp_path, monkeypatch, name):
    def fail(*_: object) -> None:
        raise OSError(116, "Stale file handle")

    monkeypatch.setattr(checkpoint, name, fail)
    assert save(tmp_path, content) == ["OSError: Stale file handle"] * WORLD


def test_a_lost_rank_is_no_failure_of_the_disk(content, tmp_path):
    class Alone(Ranks):
        def gather(self, value: Any) -> list[Any]:
            raise RuntimeError("[gloo] Connection closed")

    with pytest.raises(RuntimeError, match="Connection closed") as ended:
        saving.save(tmp_path, content, {}, Alone(0, 2))
    assert not isinstance(ended.value, ParallelTrainer.unwritten)
    assert issubclass(OSError, ParallelTrainer.unwritten)

"""The pure parts of training on several ranks: places, devices, exit codes, and ranks that are lost."""

from __future__ import annotations

import pickle
import threading
from collections.abc import Iterator

import pytest
import torch

from suite.errors import UserError
from suite.training.parallel import launch, lifeline, models, shards
from suite.training.parallel.environment import NEEDED, Place, device_of, place
from suite.training.parallel.ranks import ALONE, Ranks

SECOND = Place(1, 2, 1, 2, "127.0.0.1")


class Store(dict[str, str]):
    """A store within one process."""

    def set(self, key: str, value: str) -> None:
        self[key] = value
        announced.set()

    def get(self, key: str, *_: object) -> bytes:  # type: ignore[override]
        assert announced.wait(10)
        return self[key].encode()


announced = threading.Event()


@pytest.fixture
def ends() -> Iterator[list[lifeline.Lifeline]]:
    """Rank 0's and rank 1's end of a connection."""
    announced.clear()
    store, made = Store(), dict[int, lifeline.Lifeline]()

    def join(rank: int) -> None:
        made[rank] = lifeline.Lifeline(rank, 2, "127.0.0.1", store)

    threads = [threading.Thread(target=join, args=(rank,)) for rank in (0, 1)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    for end in made.values():
        end.settle()
    yield [made[0], made[1]]
    for end in made.values():
        for link in end._others.values():
            link.close()


def test_a_process_without_torchrun_has_no_place(monkeypatch):
    for name in NEEDED:
        monkeypatch.delenv(name, raising=False)
    assert place() is None


def test_a_process_of_torchrun_has_a_place(monkeypatch):
    given = {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2"}
    for name, value in {**given, "MASTER_ADDR": "localhost", "MASTER_PORT": "1"}.items():
        monkeypatch.setenv(name, value)
    assert place() == SECOND
    monkeypatch.setenv("RANK", "2")
    with pytest.raises(UserError, match="no ranks of a job"):
        place()


def test_each_process_has_its_own_gpu():
    assert device_of("auto", SECOND, gpus=2) == device_of("cuda", SECOND, gpus=4) == "cuda:1"
    assert device_of("auto", SECOND, gpus=0) == device_of("cpu", SECOND, gpus=2) == "cpu"
    with pytest.raises(UserError, match="it has 1"):
        device_of("auto", SECOND, gpus=1)
    with pytest.raises(UserError, match="own GPU"):
        device_of("cuda:0", SECOND, gpus=2)


def test_options_without_an_effect_are_refused():
    with pytest.raises(UserError, match="--devices 2"):
        launch.require_consistent(None, None, "fsdp")
    with pytest.raises(UserError, match="leave it out"):
        launch.require_consistent(SECOND, 3, None)
    launch.require_consistent(SECOND, 2, "ddp")


def test_a_job_has_the_exit_code_of_rank_0_or_of_the_first_failure():
    assert launch.exit_code([]) == 0
    assert launch.exit_code([(1, -9), (0, 2)]) == 2
    assert launch.exit_code([(1, -9), (2, 2)]) == 137


def test_a_rank_that_ends_without_a_message_is_lost(ends):
    next(iter(ends[1]._others.values())).shutdown(2)
    assert "rank 1 ended without a message" in ends[0].loss(5)


def test_a_rank_that_fails_sends_the_reason(ends):
    ends[1].close("DataError: no such file")
    assert ends[0].loss(5) == "rank 1 DataError: no such file"


def test_a_rank_that_ends_in_good_order_is_not_lost(ends):
    ends[1].close()
    ends[0].close()
    assert not ends[0].loss(0.3)
    assert not ends[1].loss(0.3)
    assert ends[1].dismissed


def test_a_single_process_communicates_with_nobody():
    assert ALONE.gather("a") == ["a"]
    assert ALONE.exchange([1.0]) == [[1.0]]
    assert ALONE.announce("b") == "b"
    assert ALONE.recorded() is None
    assert Ranks(1, 2, "fsdp2").recorded() is not None


def test_every_rank_drops_other_values_and_rank_0_those_of_a_single_process():
    drawn = []
    for rank in (0, 1, 2):
        torch.manual_seed(3)
        models.seed_noise(3, rank)
        drawn.append(torch.rand(4))
    torch.manual_seed(3)
    assert torch.equal(drawn[0], torch.rand(4))
    assert not torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[1], drawn[2])


def test_an_index_that_names_other_classes_is_not_executed(tmp_path):
    class Harmful:
        def __reduce__(self) -> tuple[object, ...]:
            return (print, ("executed",))

    (tmp_path / shards.INDEX).write_bytes(pickle.dumps(Harmful()))
    with pytest.raises(UserError, match="builtins"):
        shards.read(tmp_path, {shards.INDEX: shards.digest(tmp_path / shards.INDEX)})


def test_a_damaged_file_of_a_checkpoint_is_not_read(tmp_path):
    (tmp_path / "__0_0.distcp").write_bytes(b"x")
    with pytest.raises(UserError, match="damaged"):
        shards.read(tmp_path, {"__0_0.distcp": "0" * 64})

"""The pure parts of training on several ranks: places, devices, exit codes, and ranks that are lost."""

from __future__ import annotations

import contextlib
import pickle
import socket
import threading
from collections.abc import Iterator

import pytest
import torch

from suite.errors import UserError
from suite.training.parallel import launch, lifeline, models, shards
from suite.training.parallel.environment import NEEDED, Place, device_of, place
from suite.training.parallel.follower import follow
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


@pytest.fixture(params=[2, 3], ids=["two-ranks", "three-ranks"])
def ends(request) -> Iterator[list[lifeline.Lifeline]]:
    """The ends of the connections, by rank."""
    announced.clear()
    store, made = Store(), dict[int, lifeline.Lifeline]()

    def join(rank: int) -> None:
        made[rank] = lifeline.Lifeline(rank, request.param, "127.0.0.1", store)

    threads = [threading.Thread(target=join, args=(rank,)) for rank in range(request.param)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    for end in made.values():
        end.settle()
    yield [end for _, end in sorted(made.items())]
    links = [link for end in made.values() for link in end._others.values()]
    for link in links:
        with contextlib.suppress(OSError):
            link.shutdown(socket.SHUT_RDWR)
    for thread in threading.enumerate():
        if thread.name == "lifeline":
            thread.join(10)
    for link in links:
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
    for end in reversed(ends):
        end.close()
    assert not any(end.loss(0.3) for end in ends)
    assert all(end.dismissed for end in ends[1:])


def test_every_rank_learns_which_one_was_lost_and_that_rank_0_was_not(ends):
    next(iter(ends[-1]._others.values())).shutdown(2)
    for end in ends[:-1]:
        assert end.loss(5) == f"rank {len(ends) - 1} {lifeline.SILENT}"
        assert not end.vanished(0)


def test_rank_1_reports_no_loss_where_rank_0_gave_its_reason(ends, monkeypatch):
    left = [Ranks(rank, len(ends), lifeline=end) for rank, end in enumerate(ends)]
    monkeypatch.setattr("os._exit", lambda _: None)
    ends[0]._settled.clear()
    monkeypatch.setattr(lifeline, "GRACE_S", 0.0)
    ends[0]._end()
    assert "rank 0 was ended" in ends[1].loss(5)
    assert [each.reports_loss_after for each in left] == [0.0] + [None] * (len(ends) - 1)


def test_rank_1_reports_that_rank_0_was_killed(ends, monkeypatch):
    monkeypatch.setattr(lifeline, "_send", lambda *_: None)  # of rank 0, which is gone
    for link in ends[0]._others.values():
        link.shutdown(2)
    assert all(end.loss(5) == f"rank 0 {lifeline.SILENT}" for end in ends[1:])
    left = [Ranks(rank, 3, local_world=3, lifeline=end) for rank, end in enumerate(ends)][1:]
    assert [each.reports_loss_after for each in left] == [0.0, 2.0][: len(ends) - 1]


def test_where_rank_0_was_killed_the_others_report_in_turn():
    class Line(lifeline.Lifeline):
        def __init__(self) -> None:
            """Rank 0 was killed."""

        def vanished(self, rank: int) -> bool:
            return rank == 0

    found = [Ranks(rank, 9, lifeline=Line()).reports_loss_after for rank in range(9)]
    assert found == [0, 0, 2, 4, 6, 8, 10, 10, 10]


def test_another_machine_reaches_rank_0_whose_own_name_means_this_machine(monkeypatch):
    """As Debian sets it up: 127.0.1.1 is the machine's name."""
    found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.1.1", 0))]
    monkeypatch.setattr("socket.getaddrinfo", lambda *_, **__: found)
    with lifeline._server("node-1") as server:
        assert server.getsockname()[0] == "0.0.0.0"
    with lifeline._server("localhost") as server:
        assert server.getsockname()[0] == "127.0.1.1"


def test_a_parameter_without_axes_is_refused_where_it_would_be_sharded():
    model = torch.nn.Linear(2, 2)
    model.scale = torch.nn.Parameter(torch.tensor(1.0))
    models.require_supported(model, Ranks(0, 2, "ddp"))
    models.require_supported(model, ALONE)
    with pytest.raises(UserError, match="parameter scale has no axes"):
        models.require_supported(model, Ranks(0, 2, "fsdp2"))


def test_a_rank_that_waits_for_a_run_says_that_rank_0_is_lost(ends):
    class Gone(Ranks):
        def announce(self, value=None):
            raise RuntimeError("[gloo] Connection closed\nmore")

    for link in ends[0]._others.values():
        link.shutdown(2)
    with pytest.raises(UserError, match="rank 0 ended without a message"):
        follow(Gone(1, 2, lifeline=ends[1]), device="cpu", data_dir=None)


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

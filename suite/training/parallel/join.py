"""Joining the other processes of a job, and leaving them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from threading import Thread

from suite.errors import first_line
from suite.training.parallel.environment import HAVE_MET, Place, keep_on_this_machine
from suite.training.parallel.ranks import ALONE, Ranks, Strategy

#: Rank 0 may prepare data for hours while the others wait; the end of a process is noticed by the lifeline.
CONTROL_TIMEOUT = timedelta(days=7)
LEAVE_S = 5.0


@contextmanager
def joined(here: Place | None, strategy: Strategy) -> Iterator[Ranks]:
    """Within the block, this process is one of a job's ranks.

    Args:
        here: its place; None for a process by itself.
        strategy: of training.

    Yields:
        The ranks.
    """
    if here is None:
        yield ALONE
        return
    import torch
    from torch import distributed
    from torch.distributed import ProcessGroup
    from torch.distributed.distributed_c10d import PrefixStore
    from torch.distributed.rendezvous import rendezvous

    from suite.training.parallel.lifeline import Lifeline

    if here.one_machine:
        keep_on_this_machine()
    store, rank, world = next(rendezvous("env://"))
    gpus = torch.cuda.is_available()
    if gpus and here.local_rank < torch.cuda.device_count():
        torch.cuda.set_device(here.local_rank)
    backend = "cpu:gloo,cuda:nccl" if gpus else "gloo"
    distributed.init_process_group(backend, store=store, rank=rank, world_size=world)
    control = distributed.new_group(backend="gloo", timeout=CONTROL_TIMEOUT)
    assert isinstance(control, ProcessGroup)
    lifeline = Lifeline(rank, world, here.host, PrefixStore("suite", store))
    HAVE_MET.set()
    ranks = Ranks(rank, world, strategy, here.local_world, control, lifeline)
    try:
        yield ranks
    except BaseException as problem:
        _dismiss(ranks)
        lifeline.close("" if ranks.leads else f"{type(problem).__name__}: {first_line(problem)}")
        _leave(ranks)
        raise
    _dismiss(ranks)
    lifeline.close()
    _leave(ranks)


def _leave(ranks: Ranks) -> None:
    """Ends the threads of the process group: those that live when Python ends abort the process now and then, whose
    exit code is lost. A collective operation that waits for a rank that is gone would keep them for ever.
    """
    if ranks.loss():
        return
    from torch import distributed

    leaving = Thread(target=distributed.destroy_process_group, name="leave", daemon=True)
    leaving.start()
    leaving.join(LEAVE_S)


def _dismiss(ranks: Ranks) -> None:
    """Lets the other ranks end where there is no run to carry out."""
    if ranks.leads and not ranks.announced:
        with suppress(RuntimeError):
            ranks.announce(None)

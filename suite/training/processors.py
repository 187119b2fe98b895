"""Threads that compute, processes that load data, and how idle threads wait."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import torch

from backbones import compiled
from tasks.base import Task
from tasks.storage.cores import cores

MAX_WORKERS = 16

_workers: int | None = None


@contextmanager
def using(threads: int | None = None, workers: int | None = None) -> Iterator[None]:
    """Within the block runs use so many threads and loader processes.

    Args:
        threads: of PyTorch and the compiled kernels; None for `$OMP_NUM_THREADS`, else one a processor.
        workers: processes that load data; None for one a processor where data are read from files, else none.

    Yields:
        Nothing.
    """
    global _workers
    before, threads_before, _workers = _workers, torch.get_num_threads(), workers
    if threads is not None or "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(threads or cores())
    try:
        yield
    finally:
        _workers = before
        torch.set_num_threads(threads_before)


def loader_workers(task: Task) -> int:
    """How many processes load data. They do not change the batches.

    Args:
        task: of which data in files are decoded while the model trains.

    Returns:
        The number given, else as many as there are processors where data are read from files, else 0.
    """
    if _workers is not None:
        return _workers
    return min(MAX_WORKERS, cores()) if task.needs_data_dir else 0


def wait_policy() -> Literal["active", "brief", "passive"]:
    """How idle threads of PyTorch's pool wait: in a loop for milliseconds (active, the runtime's default) or for less
    than a tenth of one (brief), or asleep.
    """
    rounds = os.environ.get("GOMP_SPINCOUNT", "").strip().lower()
    if rounds.startswith("inf") or rounds[-1:] in tuple("kmgt"):
        return "active"
    if rounds.isdecimal():
        return "passive" if int(rounds) == 0 else "brief" if compiled.is_brief(int(rounds)) else "active"
    return "passive" if os.environ.get("OMP_WAIT_POLICY", "").lower() == "passive" else "active"

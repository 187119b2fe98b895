"""What a sweep's runs log for the tracking store is sent by one process, so that MLflow is imported once."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from suite.tracking.worker_handle import WorkerProcess

_FINISH_S = 120.0  # how long a sweep waits at its end while nothing arrives in the store
_PROBLEM_S = 5.0  # and for a store with a problem


@contextmanager
def sent(home: Path, warn: Callable[[str], None]) -> Iterator[None]:
    """Sends the journals of runs that are in progress inside, and at the end what is left of them.

    Args:
        home: the runs folder.
        warn: called with a line where something could not be sent; the next command tries again.

    Yields:
        Nothing.
    """
    if os.environ.get("SUITE_TRACKING") == "off":
        yield
        return
    worker = WorkerProcess(home)
    try:
        yield
    finally:
        worker.wait_delivered(_PROBLEM_S if worker.status.problem else _FINISH_S)
        problem = worker.status.problem or "not everything was delivered in time"
        if not worker.close():
            warn(f"tracking: {problem}; the runs keep what is missing, the next command sends it, or: suite publish")

"""What a sweep's runs log for the tracking store is sent by one process, so that MLflow is imported once."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from suite.tracking import backlog
from suite.tracking.worker_handle import WorkerProcess

_FINISH_S = 120.0  # how long a sweep waits at its end while nothing arrives in the store
_PROBLEM_S = 5.0  # and for a store with a problem
_SHORT_S = 3.0  # silently


@contextmanager
def sent(home: Path, say: Callable[[str], None], warn: Callable[[str], None]) -> Iterator[None]:
    """Sends the journals of runs that are in progress inside, and at the end what is left of them. An exception inside,
    such as a second Ctrl-C, is not held up: the process delivers the rest by itself.

    Args:
        home: the runs folder.
        say: called with a line where sending takes long.
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
        if not worker.wait_delivered(_SHORT_S) and not worker.status.problem:
            say("sending the runs to the tracking store …")
        worker.wait_delivered(_PROBLEM_S if worker.status.problem else _FINISH_S)
    except BaseException:
        worker.leave()
        raise
    problem = worker.status.problem or "not everything was delivered in time"
    if not worker.close():
        for run_dir in backlog.pending(home):
            backlog.make_due(run_dir)
        warn(f"tracking: {problem}; the runs keep what is missing, the next command sends it, or: suite publish")

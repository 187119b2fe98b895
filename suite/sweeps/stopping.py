"""The signals that stop a sweep, once its runs in progress have written a checkpoint."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from suite.console import err
from suite.training.signals import IMPATIENT, PATIENT

SIGNALS = (*IMPATIENT, *PATIENT)


@contextmanager
def stop_signals() -> Iterator[list[int]]:
    """Within the block a signal is a request to stop; a second SIGINT or SIGTERM ends the command at once.

    Yields:
        The number of the signal once one has arrived.
    """
    received: list[int] = []

    def handle(number: int, frame: object) -> None:
        if received and number not in PATIENT:
            sys.exit(128 + number)
        if received:
            return
        received.append(number)
        err.print("stopping: runs in progress write a checkpoint …")

    before = {number: signal.signal(number, handle) for number in SIGNALS}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

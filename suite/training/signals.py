"""Stopping a run between two steps, never inside one: on a signal that asks a process to end, or when the caller asks.
A second SIGINT or SIGTERM ends it at once.
"""

from __future__ import annotations

import signal
from types import FrameType, TracebackType
from typing import Self

IMPATIENT = (signal.SIGINT, signal.SIGTERM)
#: A closed terminal, schedulers before they kill a job, the limit of CPU time. Repeated ones are no second request.
PATIENT = (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGXCPU)


class Interrupted(Exception):
    """The run was stopped. `code` is its exit code (130 for SIGINT, 143 for SIGTERM)."""

    def __init__(self, number: int) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}")
        self.code = 128 + number


class Stop:
    """Whether a run should stop; `received` is then the number of a signal.

    This class waits for its owner to call `request`, for example from another thread. `StopSignal` listens to signals.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self._shielded = False

    def request(self, number: int = signal.SIGTERM) -> None:
        """Asks the run to stop before its next step, as if the signal of that number had come."""
        self.received = number

    def shield(self) -> None:
        """From now on a second signal is only remembered, so that it cannot interrupt what follows."""
        self._shielded = True

    def unshield(self) -> None:
        """Ends `shield`."""
        self._shielded = False


class StopSignal(Stop):
    """Context manager: the first signal requests the stop; a second SIGINT or SIGTERM raises Interrupted at once."""

    def __init__(self) -> None:
        super().__init__()
        self._old: dict[int, object] = {}

    def __enter__(self) -> Self:
        for number in (*IMPATIENT, *PATIENT):
            if number in IMPATIENT or signal.getsignal(number) is not signal.SIG_IGN:  # as nohup does
                self._old[number] = signal.signal(number, self._handle)
        return self

    def shield(self) -> None:
        """Also from PyTorch, which raises an error at every child's end once a loader process has been killed."""
        super().shield()
        self._old.setdefault(signal.SIGCHLD, signal.signal(signal.SIGCHLD, signal.SIG_DFL))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._old.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.received and not self._shielded and number in IMPATIENT:
            raise Interrupted(number)
        self.request(number)


class RankStop(StopSignal):
    """The same in one of several ranks. A second signal is no second request: the terminal and torchrun both pass on
    Ctrl-C, and torchrun ends what does not stop within 30 s.
    """

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self.received = self.received or number

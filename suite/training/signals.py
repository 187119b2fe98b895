"""Stopping a run between two steps, never inside one: on SIGINT or SIGTERM, or when the caller asks. A second signal
ends it at once.
"""

from __future__ import annotations

import signal
from types import FrameType, TracebackType
from typing import Self


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
    """Context manager: the first SIGINT or SIGTERM requests the stop; the second one raises Interrupted at once."""

    def __init__(self) -> None:
        super().__init__()
        self._old: dict[int, object] = {}

    def __enter__(self) -> Self:
        for number in (signal.SIGINT, signal.SIGTERM):
            self._old[number] = signal.signal(number, self._handle)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._old.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.received and not self._shielded:
            raise Interrupted(number)
        self.request(number)

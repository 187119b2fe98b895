"""SIGINT and SIGTERM end a run between two steps, never inside one; a second signal ends it at once."""

from __future__ import annotations

import signal
from types import FrameType, TracebackType
from typing import Self


class Interrupted(Exception):
    """A signal asked the run to stop. `code` is the exit code that goes with it (130 for SIGINT, 143 for SIGTERM)."""

    def __init__(self, number: int) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}")
        self.code = 128 + number


class StopSignal:
    """Context manager: remembers the first SIGINT or SIGTERM in `received`; the second one raises Interrupted where the
    code stands.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self._shielded = False
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

    def shield(self) -> None:
        """From here on a second signal is only remembered: what follows must not be cut in two."""
        self._shielded = True

    def unshield(self) -> None:
        self._shielded = False

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.received and not self._shielded:
            raise Interrupted(number)
        self.received = number

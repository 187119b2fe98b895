"""`python -m suite.tracking.catch_up HOME`: sends the runs that the store does not have completely (see `backlog`)."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock, Timeout

from suite.tracking import backlog
from suite.tracking.delivery import Delivery
from suite.tracking.journal import JOURNAL, LOCK, Event, JournalWriter, now_ms, read_events
from suite.tracking.process_identity import is_alive
from suite.tracking.store import Store
from suite.tracking.store_address import tracking_uri

_OPEN = {"start", "resume"}


class CatchUp:
    """Sends all runs with a mark: what their journals hold now, and their ends once they have any."""

    run_id = ""

    def __init__(self, home: Path, uri: str) -> None:
        self._home, self._uri = home, uri
        self._store: Store | None = None
        self._begun: dict[Path, _Begun] = {}
        self._left: set[Path] = set()  # of which the store refused something: another process may try again
        self.refused, self.refusal = 0, ""

    def deliver(self, *, progress: Callable[[int], None] = lambda _: None) -> list[str]:
        """Sends what is due. A run whose process has died without logging its end gets the status KILLED.

        Args:
            progress: called after each run with how many this call has visited.

        Returns:
            The names of the runs that the store now has completely.

        Raises what the store raises.
        """
        sent = list[str]()
        for visited, run_dir in enumerate(backlog.pending(self._home), 1):
            if run_dir in self._left:
                continue
            (run_dir / backlog.PENDING).touch()
            try:
                with FileLock(str(run_dir / LOCK), timeout=0):
                    if self._send(run_dir):
                        backlog.remove(run_dir)
                        sent.append(run_dir.name)
            except Timeout:
                continue  # its own worker sends it
            progress(visited)
        return sent

    def heartbeat(self, time_ms: int) -> None:
        """Records in the store that the runs in progress are alive."""
        for begun in self._begun.values():
            begun.delivery.heartbeat(time_ms)

    def _send(self, run_dir: Path) -> bool:
        """Whether everything of the run is in the store, its end included."""
        self._store = self._store or Store(self._home, self._uri)
        begun = self._begun.get(run_dir)
        if begun is None:
            delivery = Delivery(self._home, run_dir, self._uri, boards=False, store=self._store)
            begun = self._begun[run_dir] = _Begun(run_dir / JOURNAL, delivery)
            begun.delivery.deliver(again=True)
        else:
            begun.delivery.deliver()
        last = begun.last()
        if last is not None and last["kind"] in _OPEN:
            if is_alive(last["tags"]):
                return False
            writer = JournalWriter(run_dir)
            writer.append({"kind": "finish", "time": now_ms(), "status": "KILLED"})
            writer.close()
            begun.delivery.deliver()
        del self._begun[run_dir]
        if last is None or begun.delivery.refused:
            self._left.add(run_dir)
            self.refused, self.refusal = self.refused + begun.delivery.refused, begun.delivery.refusal
        return run_dir not in self._left


class _Begun:
    """A run that is being sent, and the last of its starts and ends so far."""

    def __init__(self, journal: Path, delivery: Delivery) -> None:
        self._journal, self.delivery = journal, delivery
        self._offset = 0
        self._last: Event | None = None

    def last(self) -> Event | None:
        """The last start, resume or end in the journal, of which only what is new is read."""
        for event, end in read_events(self._journal, self._offset):
            self._offset = end
            if event["kind"] in _OPEN | {"finish"}:
                self._last = event
        return self._last


def catch_up(home: Path) -> list[str]:
    """Sends what is due, once.

    Args:
        home: the runs folder.

    Returns:
        The names of the runs that the store now has completely.

    Raises what the store raises.
    """
    return CatchUp(home, tracking_uri(home)).deliver()


if __name__ == "__main__":
    os.nice(10)
    catch_up(Path(sys.argv[1]))
    os._exit(0)

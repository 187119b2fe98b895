"""`python -m suite.tracking.catch_up HOME`: sends the runs that the store does not have completely (see `backlog`)."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock, Timeout

from suite.errors import reason
from suite.tracking import backlog
from suite.tracking.delivery import Delivery
from suite.tracking.journal import JOURNAL, LOCK, Event, JournalWriter, now_ms, read_events
from suite.tracking.process_identity import may_be_alive
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
        self.refused, self.refusal, self._delivered = 0, "", 0

    def deliver(self, *, progress: Callable[[int], None] = lambda _: None) -> list[str]:
        """Sends what is due. A run whose process has died without logging its end gets the status KILLED.

        A run that cannot be sent does not keep the others back; a second one in the same call ends it, since then the
        store is away.

        Args:
            progress: called, as something arrives, with a number that grows.

        Returns:
            The names of the runs that the store now has completely.

        Raises what the store raises.
        """
        sent, problems = list[str](), list[Exception]()
        for run_dir in backlog.pending(self._home):
            if run_dir in self._left:
                continue
            try:
                (run_dir / backlog.PENDING).touch()
                with FileLock(str(run_dir / LOCK), timeout=0):
                    if self._send(run_dir, lambda _: self._advance(progress)):
                        backlog.remove(run_dir)
                        sent.append(run_dir.name)
            except Timeout:
                continue  # its own worker sends it
            except (FileNotFoundError, PermissionError) as problem:  # of its folder: a store has other errors
                self._leave(run_dir, f"{run_dir.name}: {reason(problem)}")
            except Exception as problem:  # MLflow, its server and its database raise many types
                problems.append(problem)
                if len(problems) > 1:
                    break
        if problems:
            raise problems[0]
        return sent

    def _advance(self, progress: Callable[[int], None]) -> None:
        self._delivered += 1
        progress(self._delivered)

    def _leave(self, run_dir: Path, why: str, entries: int = 1) -> None:
        """Another process may try again; this one would fail again."""
        self._left.add(run_dir)
        self.refused, self.refusal = self.refused + entries, why

    def heartbeat(self, time_ms: int) -> None:
        """Records in the store that the runs in progress are alive."""
        for begun in self._begun.values():
            begun.delivery.heartbeat(time_ms)

    def _send(self, run_dir: Path, progress: Callable[[int], None]) -> bool:
        """Whether everything of the run is in the store, its end included."""
        self._store = self._store or Store(self._home, self._uri)
        begun = self._begun.get(run_dir)
        if begun is None or not begun.is_same_journal():
            delivery = Delivery(self._home, run_dir, self._uri, boards=False, store=self._store)
            begun = self._begun[run_dir] = _Begun(run_dir / JOURNAL, delivery)
            begun.delivery.deliver(again=True, progress=progress)
        else:
            begun.delivery.deliver(progress=progress)
        last = begun.last()
        if last is not None and last["kind"] in _OPEN:
            if may_be_alive(last["tags"]) or begun.last() != last:
                return False
            writer = JournalWriter(run_dir)
            writer.append({"kind": "finish", "time": now_ms(), "status": "KILLED"})
            writer.close()
            begun.delivery.deliver()
        del self._begun[run_dir]
        if begun.delivery.refused:
            self._leave(run_dir, begun.delivery.refusal, begun.delivery.refused)
        elif last is None:
            self._leave(run_dir, f"{run_dir.name}: its journal does not contain the start of a run")
        return run_dir not in self._left


class _Begun:
    """A run that is being sent, and the last of its starts and ends so far."""

    def __init__(self, journal: Path, delivery: Delivery) -> None:
        self._journal, self.delivery = journal, delivery
        self._inode = journal.stat().st_ino
        self._offset = 0
        self._last: Event | None = None

    def is_same_journal(self) -> bool:
        """Whether the run has not begun its journal again."""
        return self._journal.stat().st_ino == self._inode

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

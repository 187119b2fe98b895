"""`python -m suite.tracking.catch_up HOME`: sends the runs that the store does not have completely (see `backlog`)."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from filelock import FileLock, Timeout

from suite.tracking import backlog
from suite.tracking.delivery import Delivery
from suite.tracking.journal import JOURNAL, LOCK, JournalWriter, now_ms, read_events
from suite.tracking.process_identity import is_alive
from suite.tracking.store_address import tracking_uri


def catch_up(home: Path) -> list[str]:
    """Sends what is due. A run whose process has died without logging its end gets the status KILLED.

    Returns the names of the runs that the store now has completely. Raises what the store raises.
    """
    sent = list[str]()
    for run_dir in backlog.pending(home):
        (run_dir / backlog.PENDING).touch()
        try:
            with FileLock(str(run_dir / LOCK), timeout=0):
                if _send(home, run_dir):
                    backlog.remove(run_dir)
                    sent.append(run_dir.name)
        except Timeout:
            continue  # it is still running
    return sent


def _send(home: Path, run_dir: Path) -> bool:
    """Whether everything of the run is in the store, its end included."""
    delivery = Delivery(home, run_dir, tracking_uri(home), boards=False)
    delivery.deliver(again=True)
    last = next((e for e, _ in reversed(list(read_events(run_dir / JOURNAL))) if e["kind"] in _OPEN | {"finish"}), None)
    if last is not None and last["kind"] in _OPEN:
        if is_alive(last["tags"]):
            return False
        writer = JournalWriter(run_dir)
        writer.append({"kind": "finish", "time": now_ms(), "status": "KILLED"})
        writer.close()
        delivery.deliver()
    return last is not None and delivery.refused == 0


_OPEN = {"start", "resume"}

if __name__ == "__main__":
    os.nice(10)
    catch_up(Path(sys.argv[1]))
    os._exit(0)

"""The tracking worker, `python -m suite.tracking.worker HOME RUN_DIR`: delivers a run's journal while the run goes on.

It reads requests (a number a line) from its input and answers each with a line of JSON, a `WorkerStatus`. Between them
it delivers every two seconds. When its input ends, the run is over or its process is gone: the worker delivers the
rest, ends the run as KILLED if the run itself did not say how it ended, and leaves.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import TextIO

from filelock import FileLock, Timeout

from suite.tracking.delivery import Delivery
from suite.tracking.error_messages import explain
from suite.tracking.journal import JOURNAL, LOCK, JournalWriter, now_ms, read_events
from suite.tracking.store import public_uri, tracking_uri
from suite.tracking.worker_handle import WorkerStatus

_PERIOD_S = 2.0
_BEAT_S = 60.0
_PAUSE_S, _LONGEST_PAUSE_S = 5.0, 60.0  # between attempts at a store in trouble
_LOCK_S = 20.0  # for the worker of an earlier part of this run to leave


class Worker:
    """Delivers one journal, holding on to the reasons why it could not."""

    def __init__(self, home: Path, run_dir: Path, answers: TextIO) -> None:
        self._run_dir, self._answers = run_dir, answers
        self._uri = tracking_uri(home)
        self._delivery = Delivery(home, run_dir, self._uri)
        self._parent = os.getppid()
        self._request = 0
        self._trouble = ""
        self._pause, self._next_try, self._next_beat = _PAUSE_S, 0.0, 0.0

    def serve(self) -> None:
        while self._wait_for_request():
            asked = self._read_requests()
            if asked is None:
                break
            if asked or time.monotonic() >= self._next_try:
                self._deliver()
                self._answer()
        if self._deliver() and self._abandoned():
            writer = JournalWriter(self._run_dir)
            writer.append({"kind": "finish", "time": now_ms(), "status": "KILLED"})
            writer.close()
            self._deliver()

    def _wait_for_request(self) -> bool:
        """Waits for a request, at most until the next round. False when the run's process is gone."""
        select.select([sys.stdin], [], [], _PERIOD_S)
        return os.getppid() == self._parent

    def _read_requests(self) -> bool | None:
        """True when something was asked, False when nothing was, None at the end of the input."""
        asked = False
        while select.select([sys.stdin], [], [], 0)[0]:
            text = os.read(sys.stdin.fileno(), 4096)
            if not text:
                return None
            numbers = text.split()
            self._request, asked = int(numbers[-1]), True
        return asked

    def _deliver(self) -> bool:
        try:
            self._delivery.pump()
            if time.monotonic() >= self._next_beat:
                self._delivery.beat(now_ms())
                self._next_beat = time.monotonic() + _BEAT_S
        except Exception as error:  # whatever MLflow, its server, its database or the disk come up with
            print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)  # noqa: T201 (standard error is the log file)
            self._trouble = explain(error, public_uri(self._uri))
            self._next_try = time.monotonic() + self._pause
            self._pause = min(2 * self._pause, _LONGEST_PAUSE_S)
            return False
        refused = self._delivery.refused
        self._trouble = (
            f"{public_uri(self._uri)} refused {refused} entries ({self._delivery.refusal})" if refused else ""
        )
        self._pause, self._next_try = _PAUSE_S, 0.0
        return True

    def _answer(self) -> None:
        status = WorkerStatus(
            self._delivery.run_id,
            public_uri(self._uri),
            self._request,
            delivered=not self._trouble,
            trouble=self._trouble,
        )
        _say(self._answers, status)

    def _abandoned(self) -> bool:
        """True when the run neither said how it ended nor was taken up again by another process."""
        last: dict[str, object] = {}
        for event, _ in read_events(self._run_dir / JOURNAL):
            if event["kind"] in ("start", "resume", "finish"):
                last = event
        return last.get("kind") in ("start", "resume") and last["tags"]["suite.pid"] == str(self._parent)  # type: ignore[index]


def _say(answers: TextIO, status: WorkerStatus) -> None:
    with contextlib.suppress(BrokenPipeError):  # the run's process is gone; the next read of the input tells
        answers.write(json.dumps(asdict(status)) + "\n")
        answers.flush()


def main(home: str, run_dir: str) -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # the end of the input ends the worker, so nothing is left undelivered
    os.nice(2)  # behind the run, though not so far that a busy machine starves it
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever MLflow prints goes to the log, not among the answers
    try:
        with FileLock(str(Path(run_dir) / LOCK), timeout=_LOCK_S):
            Worker(Path(home), Path(run_dir), answers).serve()
    except Timeout:
        _say(answers, WorkerStatus(trouble="another process is tracking this run"))


if __name__ == "__main__":
    main(*sys.argv[1:])
    os._exit(0)  # tearing down MLflow's modules takes a second, and the run waits for this process

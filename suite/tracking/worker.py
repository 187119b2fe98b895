"""The tracking worker, `python -m suite.tracking.worker HOME RUN_DIR`: delivers a run's journal during the run.

It reads requests (one number per line) from its input and answers each with one line of JSON, a `WorkerStatus`. Between
requests it delivers every two seconds. When its input ends, the run has finished or its process has died: the worker
delivers the rest, ends the run as KILLED if the run itself logged no end, and exits.

Without RUN_DIR it delivers the journals of all runs that leave this to it: those of a sweep, so that MLflow is imported
once and not for each run.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Protocol, TextIO

from filelock import FileLock, Timeout

from suite.safe_text import RedactingStream, redacted
from suite.tracking.catch_up import CatchUp
from suite.tracking.delivery import Delivery
from suite.tracking.error_messages import explain
from suite.tracking.journal import JOURNAL, LOCK, Event, JournalWriter, now_ms, read_events
from suite.tracking.process_identity import PID_TAG
from suite.tracking.store_address import public_uri, tracking_uri
from suite.tracking.worker_handle import WorkerStatus

_PERIOD_S = 2.0
_HEARTBEAT_S = 60.0
_PAUSE_S, _LONGEST_PAUSE_S = 5.0, 60.0  # between attempts after a failed delivery
_PROGRESS_S = 0.5
_LOCK_S = 20.0  # time for the worker of an earlier part of this run to exit


class Deliverer(Protocol):
    """What delivers: one journal (`Delivery`) or those of several runs (`CatchUp`)."""

    @property
    def run_id(self) -> str: ...
    @property
    def refused(self) -> int: ...
    @property
    def refusal(self) -> str: ...
    def deliver(self, *, progress: Callable[[int], None]) -> object: ...
    def heartbeat(self, time_ms: int) -> None: ...


class Worker:
    """Delivers until its input ends, and remembers why a delivery failed."""

    def __init__(self, delivery: Deliverer, uri: str, answers: TextIO) -> None:
        self._delivery, self._uri, self._answers = delivery, uri, answers
        self._parent = os.getppid()
        self._request = self._answered = self._offset = 0
        self._next_progress = 0.0
        self._problem = ""
        self._pause, self._next_try, self._next_heartbeat = _PAUSE_S, 0.0, 0.0

    def serve(self) -> bool:
        """Returns whether the last delivery succeeded."""
        while self._wait_for_request():
            requested = self._read_requests()
            if requested is None:
                break
            if requested or time.monotonic() >= self._next_try:
                self.deliver()
                self._answer()
        return self.deliver()

    def _wait_for_request(self) -> bool:
        """Waits for a request, at most one period. False if the run's process has died."""
        select.select([sys.stdin], [], [], _PERIOD_S)
        return os.getppid() == self._parent

    def _read_requests(self) -> bool | None:
        """True if there was a request, False if not, None at the end of the input."""
        requested = False
        while select.select([sys.stdin], [], [], 0)[0]:
            text = os.read(sys.stdin.fileno(), 4096)
            if not text:
                return None
            numbers = text.split()
            self._request, requested = int(numbers[-1]), True
        return requested

    def deliver(self) -> bool:
        """Delivers once; whether that succeeded. A refused entry is no failure."""
        try:
            self._delivery.deliver(progress=self._report_progress)
            if time.monotonic() >= self._next_heartbeat:
                self._delivery.heartbeat(now_ms())
                self._next_heartbeat = time.monotonic() + _HEARTBEAT_S
        except Exception as error:  # MLflow, its server, its database and the disk raise many types
            print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)  # noqa: T201 (standard error is the log file)
            self._problem = redacted(explain(error, public_uri(self._uri)))
            self._next_try = time.monotonic() + self._pause
            self._pause = min(2 * self._pause, _LONGEST_PAUSE_S)
            return False
        refused = self._delivery.refused
        self._problem = (
            f"{public_uri(self._uri)} refused {refused} entries ({redacted(self._delivery.refusal)})" if refused else ""
        )
        self._pause, self._next_try = _PAUSE_S, 0.0
        return True

    def _report_progress(self, offset: int) -> None:
        """On the way, so that the run at its end waits as long as something arrives."""
        self._offset = offset
        if time.monotonic() >= self._next_progress:
            self._next_progress = time.monotonic() + _PROGRESS_S
            uri = public_uri(self._uri)
            _write_status(self._answers, WorkerStatus(self._delivery.run_id, uri, self._answered, offset=offset))

    def _answer(self) -> None:
        self._answered = self._request
        status = WorkerStatus(
            self._delivery.run_id,
            public_uri(self._uri),
            self._request,
            delivered=not self._problem,
            problem=self._problem,
            offset=self._offset,
        )
        _write_status(self._answers, status)


def _of_run(home: Path, run_dir: Path, answers: TextIO) -> None:
    """Delivers a run's journal, and ends the run in the store if its process has died without logging its end."""
    uri, parent = tracking_uri(home), os.getppid()
    with FileLock(str(run_dir / LOCK), timeout=_LOCK_S):
        worker = Worker(Delivery(home, run_dir, uri), uri, answers)
        if worker.serve() and _abandoned(run_dir, parent):
            writer = JournalWriter(run_dir)
            writer.append({"kind": "finish", "time": now_ms(), "status": "KILLED"})
            writer.close()
            worker.deliver()


def _abandoned(run_dir: Path, parent: int) -> bool:
    """True if the run neither logged its end nor was resumed by another process."""
    last: Event = {}
    for event, _ in read_events(run_dir / JOURNAL):
        if event["kind"] in ("start", "resume", "finish"):
            last = event
    return last.get("kind") in ("start", "resume") and last["tags"].get(PID_TAG) == str(parent)


def _write_status(answers: TextIO, status: WorkerStatus) -> None:
    with contextlib.suppress(BrokenPipeError):  # the run's process has died; the next read of the input shows it
        answers.write(json.dumps(asdict(status)) + "\n")
        answers.flush()


def main(home: str, run_dir: str | None = None) -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGXCPU):
        signal.signal(number, signal.SIG_IGN)  # the worker ends when its input ends, so that everything is delivered
    os.nice(2)  # a little below the run's priority, but not so low that a busy machine starves the worker
    sys.stderr = RedactingStream(sys.stderr)  # its log; libraries write there too
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever MLflow prints goes to the log file, not to the answers
    try:
        if run_dir is None:
            uri = tracking_uri(Path(home))
            Worker(CatchUp(Path(home), uri), uri, answers).serve()
        else:
            _of_run(Path(home), Path(run_dir), answers)
    except Timeout:
        _write_status(answers, WorkerStatus(problem="another process is tracking this run"))


if __name__ == "__main__":
    main(*sys.argv[1:])
    os._exit(0)  # tearing down MLflow's modules takes a second, and the run waits for this process

"""The training process's handle of the tracking worker: starts it, requests deliveries, reads its status, ends it."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from suite.tracking.journal import LOG, open_private

_LONGEST_S = 600.0
_END_S = 3.0  # between closing the worker's input and killing it


@dataclass(frozen=True)
class WorkerStatus:
    """The worker's last status: the run in the store, the last request it has handled, a short description of a
    problem, and how many bytes of the journal are delivered.
    """

    run_id: str = ""
    uri: str = ""
    request: int = 0
    delivered: bool = False
    problem: str = ""
    offset: int = 0


class NoWorker:
    """Replaces the worker of a run if `SUITE_TRACKING` is `off` or `later`: the journal is written, nothing is
    delivered, and nothing is reported.
    """

    status = WorkerStatus()

    def request_delivery(self) -> None: ...

    def wait_delivered(self, timeout_s: float) -> bool:
        return True

    def close(self) -> bool:
        return True


class WorkerProcess:
    """A worker process. Its problems are reported in `status`, never raised.

    It delivers the journal in `run_dir`; without one, those of all runs in `home` that have `SUITE_TRACKING=later`.
    """

    def __init__(self, home: Path, run_dir: Path | None = None) -> None:
        self.status = WorkerStatus()
        self._changed = threading.Condition()
        self._requests = 0
        self._closing = False
        self._log_path = (run_dir or home) / LOG
        self._process: subprocess.Popen[str] | None = None
        try:
            self._process = self._start(home, run_dir)
        except OSError as error:
            self.status = WorkerStatus(problem=f"the tracking process did not start ({error.strerror})")
            return
        threading.Thread(target=self._listen, name="tracking", daemon=True).start()

    def request_delivery(self) -> None:
        """Requests a delivery without waiting for it."""
        self._requests += 1
        if self._process is None or self._process.stdin is None:
            return
        try:
            self._process.stdin.write(f"{self._requests}\n")
            self._process.stdin.flush()
        except (OSError, ValueError):
            pass  # the worker has ended: `_listen` reports it

    def wait_delivered(self, timeout_s: float) -> bool:
        """Requests a delivery and waits for it; returns whether everything was delivered. While something arrives it
        waits on, at most `_LONGEST_S`.
        """
        self.request_delivery()
        deadline, last, offset = time.monotonic() + timeout_s, time.monotonic() + _LONGEST_S, self.status.offset
        with self._changed:
            while self._alive() and self.status.request < self._requests:
                if self.status.offset != offset:
                    offset, deadline = self.status.offset, min(time.monotonic() + timeout_s, last)
                left = deadline - time.monotonic()
                if left <= 0:
                    return False
                self._changed.wait(left)
        return self.status.delivered and self.status.request == self._requests

    def close(self) -> bool:
        """Ends the worker; returns whether the last requested delivery was complete."""
        delivered = self.status.delivered and self.status.request == self._requests
        if self._process is None:
            return False
        self._closing = True
        if self._process.stdin is not None:
            with contextlib.suppress(OSError):
                self._process.stdin.close()
        try:
            self._process.wait(_END_S if delivered else 0.2)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if delivered:
            self._log_path.unlink(missing_ok=True)
        return delivered

    def leave(self) -> None:
        """Ends its input without waiting: it delivers the rest by itself."""
        if self._process is not None and self._process.stdin is not None:
            self._closing = True
            with contextlib.suppress(OSError):
                self._process.stdin.close()

    def _alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def _start(self, home: Path, run_dir: Path | None) -> subprocess.Popen[str]:
        root = str(Path(__file__).resolve().parents[2])
        path = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH", ""))))
        environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
        folders = [str(folder.resolve()) for folder in (home, run_dir) if folder]
        with self._open_log() as log:
            return subprocess.Popen(
                [sys.executable, "-m", "suite.tracking.worker", *folders],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env=environment,
                text=True,
                # Ctrl-C reaches the run only; the worker notices the end of the run and delivers the rest
                start_new_session=True,
            )

    def _open_log(self) -> IO[str]:
        try:
            return open_private(self._log_path)
        except OSError:
            return Path(os.devnull).open("w")

    def _listen(self) -> None:
        process = self._process
        assert process is not None
        assert process.stdout is not None
        for line in process.stdout:
            with self._changed:
                self.status = WorkerStatus(**json.loads(line))
                self._changed.notify_all()
        process.stdout.close()
        code = process.wait()
        with self._changed:
            if code != 0 and not self._closing:
                last = self.status
                self.status = WorkerStatus(
                    last.run_id,
                    last.uri,
                    last.request,
                    False,
                    f"the tracking process ended unexpectedly (exit code {code})",
                )
            self._changed.notify_all()

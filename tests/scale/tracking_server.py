"""The server of `examples/tracking-server` on 127.0.0.1, started by the same script as in the container."""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.suite.tracking.tracked_runs import free_port, responds, wait_for

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "tracking-server"
ADMIN = "admin"


@dataclass(frozen=True)
class TrackingServer:
    """A running server: its address, the password of `admin`, the file with all that it printed, its process."""

    url: str
    password: str
    log: Path
    pid: int

    def environment(self, user: str = ADMIN, password: str | None = None) -> dict[str, str]:
        """What a user sets to track to it."""
        return {
            "MLFLOW_TRACKING_URI": self.url,
            "MLFLOW_TRACKING_USERNAME": user,
            "MLFLOW_TRACKING_PASSWORD": password or self.password,
        }


@contextmanager
def tracking_server(folder: Path, database: str) -> Iterator[TrackingServer]:
    """Runs the example's server.

    Args:
        folder: of artifacts and the log.
        database: the address of an empty PostgreSQL database.
    """
    folder.mkdir(parents=True)
    port, password, log = free_port(), secrets.token_hex(16), folder / "server.log"
    arguments = ["--port", str(port), "--artifacts", str(folder / "artifacts")]
    own = {
        "MLFLOW_BACKEND_STORE_URI": database,
        "MLFLOW_AUTH_ADMIN_USERNAME": ADMIN,
        "MLFLOW_AUTH_ADMIN_PASSWORD": password,
    }
    inherited = {name: text for name, text in os.environ.items() if not name.startswith("MLFLOW_TRACKING")}
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, str(EXAMPLE / "serve.py"), *arguments],
            stdout=out,
            stderr=out,
            stdin=subprocess.DEVNULL,
            cwd=folder,
            env={**inherited, **own, "TMPDIR": str(folder)},
            process_group=0,
        )
    url = f"http://127.0.0.1:{port}"
    try:
        wait_for(lambda: _is_up(process, url, log), "the tracking server responds")
        yield TrackingServer(url, password, log, process.pid)
    finally:
        _end(process)


def _is_up(process: subprocess.Popen[bytes], url: str, log: Path) -> bool:
    assert process.poll() is None, f"the tracking server ended: {log.read_text('utf-8')[-2000:]}"
    return responds(f"{url}/health")


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ends the process group: the server's workers do not outlive it."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(10)

"""Helpers of the tracking tests: trackers, direct queries of the store's tables, a local MLflow server."""

from __future__ import annotations

import os
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from suite.tracking.client import Tracker
from suite.tracking.worker_handle import WorkerProcess, WorkerStatus


class SilentWorker:
    """Replaces the worker process in tests that deliver by themselves or not at all."""

    def __init__(self, home: Path, run_dir: Path) -> None:
        self.status = WorkerStatus()

    def request_delivery(self) -> None: ...

    def wait_delivered(self, timeout_s: float) -> bool:
        return False

    def close(self) -> bool:
        return True


def tracker(home: Path, run: str = "run-a", *, warnings: list[str] | None = None, **options: object) -> Tracker:
    warnings = [] if warnings is None else warnings
    options = {
        "experiment": "fashion-mnist",
        "run_name": "fem · quick · seed 0",
        "params": {"mixer.name": "fem", "train.lr": 1e-3},
        "tags": {"mixer": "fem"},
        **options,
    }
    return Tracker(home=home, run_dir=home / run, warn=warnings.append, **options)  # type: ignore[arg-type]


def rows(home: Path, query: str, *values: object) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(home / "mlflow.db")) as database:
        found = database.execute(query, values).fetchall()
        database.commit()
        return found


def points(home: Path, metric: str, run_id: str | None = None) -> list[tuple[int, float]]:
    """(step, value) of every point of a metric, ordered by step."""
    if run_id is None:
        return rows(home, "select step, value from metrics where key = ? order by step", metric)
    return rows(home, "select step, value from metrics where key = ? and run_uuid = ? order by step", metric, run_id)


def worker_process(tracked: Tracker) -> subprocess.Popen[str]:
    """The process that delivers a tracker's journal."""
    assert isinstance(tracked._worker, WorkerProcess)
    assert tracked._worker._process is not None
    return tracked._worker._process


def statuses(home: Path) -> list[tuple[str, str]]:
    return rows(home, "select name, status from runs order by start_time")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(condition, what: str, timeout_s: float = 180.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"not within {timeout_s} s: {what}"
        time.sleep(0.05)


@contextmanager
def mlflow_server(folder: Path, port: int) -> Iterator[str]:
    """A real MLflow server on 127.0.0.1 with its own database in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    storage = [
        "--backend-store-uri",
        f"sqlite:///{folder}/mlflow.db",
        "--artifacts-destination",
        str(folder / "artifacts"),
    ]
    environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    environment.pop("MLFLOW_TRACKING_URI", None)
    with (folder / "server.log").open("wb") as log:
        server = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "mlflow",
                "server",
                "--host",
                "127.0.0.1",
                "--port",
                str(port),
                "--workers",
                "1",
                *storage,
            ],
            stdout=log,
            stderr=log,
            env=environment,
            cwd=folder,
        )
    try:
        wait_for(lambda: responds(f"http://127.0.0.1:{port}/health"), "the MLflow server responds")
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait(20)


def responds(url: str) -> bool:
    try:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(url, timeout=5) as reply:
            return reply.status == 200
    except (urllib.error.URLError, OSError):
        return False

"""`suite ui`: the MLflow UI of the embedded store, opened on a task's board. It is a child process of this one."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import webbrowser
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

import psutil
import typer

from suite.errors import UserError
from suite.tracking.error_messages import explain
from suite.tracking.journal import open_private
from suite.tracking.publishing import board_urls
from suite.tracking.store_address import is_server, public_uri, tracking_uri

HOST = "127.0.0.1"
_FIRST_PORT, _PORTS = 5000, 100
_START_S = 90.0
_END_S = 5.0
_LOG = "ui.log"


class _Stopped(Exception):
    """SIGTERM was received."""


def serve(home: Path, port: int | None, task: str | None = None, open_browser: bool = False) -> int:
    """Serves the UI until Ctrl-C (returns 0) or SIGTERM (returns 143); returns 1 when the server ends by itself.

    `port` None uses the first free port from 5000. If `MLFLOW_TRACKING_URI` is a server, its address is printed and
    nothing is started. Raises `UserError`.
    """
    uri = tracking_uri(home)
    if is_server(uri):
        _show(_boards(home, uri, public_uri(uri)), public_uri(uri), task, open_browser)
        return 0
    port = _free_port() if port is None else _checked_port(port)
    base = f"http://{HOST}:{port}"
    boards = _boards(home, uri, base)  # opens the database, and creates it if needed, before the server does
    try:
        with _stop_on_sigterm(), _server(home, uri, port) as process:
            _wait_until_up(process, base, home)
            _show(boards, base, task, open_browser)
            typer.echo("Press Ctrl-C to stop.", err=True)
            process.wait()
    except KeyboardInterrupt:
        return 0
    except _Stopped:
        return 143
    typer.echo(f"error: the MLflow server stopped unexpectedly; see {home / _LOG}", err=True)
    return 1


def _boards(home: Path, uri: str, base: str) -> dict[str, str]:
    try:
        return board_urls(home, base)
    except Exception as error:  # MLflow, its server, its database and the disk raise many types
        raise UserError(f"suite ui: {explain(error, public_uri(uri))}") from error


def _show(boards: dict[str, str], base: str, task: str | None, open_browser: bool) -> None:
    """Prints the address of the task's board, or of all boards if no task is given; opens the first."""
    shown = {name: url for name, url in boards.items() if task in (None, name)}
    for name, url in shown.items():
        typer.echo(f"{name}: {url}")
    if not shown:
        typer.echo(f"no board of {task or 'any task'} yet (the first run creates it): {base}")
    if open_browser:
        webbrowser.open(next(iter(shown.values()), base))


def _free_port() -> int:
    for port in range(_FIRST_PORT, _FIRST_PORT + _PORTS):
        if _is_free(port):
            return port
    raise UserError(
        f"suite ui: no free port between {_FIRST_PORT} and {_FIRST_PORT + _PORTS - 1}; choose another with --port"
    )


def _checked_port(port: int) -> int:
    if not _is_free(port):
        raise UserError(
            f"suite ui: port {port} is in use; choose another with --port, or leave --port out to use a free one"
        )
    return port


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


@contextlib.contextmanager
def _server(home: Path, uri: str, port: int) -> Iterator[subprocess.Popen[bytes]]:
    """Runs the server as a separate process group and ends the whole group on exit."""
    arguments = [
        "server",
        "--host",
        HOST,
        "--port",
        str(port),
        "--workers",
        "1",
        "--artifacts-destination",
        str(home / "artifacts"),
    ]
    environment = {
        **os.environ,
        "MLFLOW_BACKEND_STORE_URI": uri,  # not an argument: it may contain a password, and all users see arguments
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }
    environment.pop("MLFLOW_TRACKING_URI", None)
    with open_private(home / _LOG) as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "mlflow", *arguments],
            cwd=home,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        _end_group(process)


def _end_group(process: subprocess.Popen[bytes]) -> None:
    with _signals_ignored():
        members = _process_tree(process.pid)
        for number in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, number)
            deadline = time.monotonic() + _END_S
            while time.monotonic() < deadline and any(_is_alive(member) for member in members):
                time.sleep(0.05)
        process.wait()


def _process_tree(pid: int) -> list[psutil.Process]:
    try:
        parent = psutil.Process(pid)
        return [parent, *parent.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def _is_alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@contextlib.contextmanager
def _signals_ignored() -> Iterator[None]:
    """Ignores a second Ctrl-C, which would leave half of the server running."""
    before = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _wait_until_up(process: subprocess.Popen[bytes], base: str, home: Path) -> None:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # no proxy for this machine's own address
    deadline = time.monotonic() + _START_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            break
        try:
            with opener.open(f"{base}/health", timeout=2):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
    raise UserError(f"suite ui: the MLflow server did not start; see {home / _LOG}")


@contextlib.contextmanager
def _stop_on_sigterm() -> Iterator[None]:
    def stop(number: int, frame: FrameType | None) -> None:
        raise _Stopped

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)

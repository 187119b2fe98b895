"""Fetching from the hub: its real client against a small server that answers as the hub does, on this machine."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.tasks.series_files import write_exchange

REPO = "thuml/Time-Series-Library"
COMMIT = "a" * 40
FETCH = """
import sys
from tasks.published_series import Exchange
from tasks.base import DataError
try:
    task = Exchange()
    task.load()
    print(task.fingerprint, task.info().fingerprint)
except DataError as error:
    print("refused:", error)
"""


class Hub(ThreadingHTTPServer):
    """Serves the files of one data set as the hub does: metadata with HEAD, content with GET, the list of files as JSON."""

    daemon_threads = True

    def __init__(self, files: dict[str, bytes]) -> None:
        self.files, self.downloads = files, []
        super().__init__(("127.0.0.1", 0), _Answer)


class _Answer(BaseHTTPRequestHandler):
    server: Hub

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, *, body: bool) -> None:
        path = self.path.split("?")[0]
        if path.startswith(f"/api/datasets/{REPO}/tree/"):
            listed = [{"type": "file", "path": name, "size": len(held), "oid": "0" * 40} for name, held in self.server.files.items()]
            return self._send(200, json.dumps(listed).encode(), body, {"Content-Type": "application/json"})
        name = path.rpartition("/resolve/")[2].partition("/")[2]
        if name not in self.server.files:
            return self._send(404, b"Entry not found", body, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": COMMIT})
        content = self.server.files[name]
        if body:
            self.server.downloads.append(name)
        return self._send(200, content, body, {"X-Repo-Commit": COMMIT, "ETag": f'"{hashlib.sha1(content).hexdigest()}"'})

    def _send(self, status: int, content: bytes, body: bool, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        if body:
            self.wfile.write(content)


@pytest.fixture
def exchange(tmp_path):
    return write_exchange(tmp_path / "made").read_bytes()


@pytest.fixture
def serve():
    """Starts a hub with the files given."""
    started = []

    def start(files: dict[str, bytes]) -> Hub:
        hub = Hub(files)
        threading.Thread(target=hub.serve_forever, daemon=True).start()
        started.append(hub)
        return hub

    yield start
    for hub in started:
        hub.shutdown()
        hub.server_close()


def fetch(tmp_path: Path, endpoint: str, **variables: str) -> str:
    """Loads the task `exchange` in a process of its own: the client reads its settings when it is imported."""
    environment = {"HF_ENDPOINT": endpoint, "HF_HOME": str(tmp_path / "hf"), "PATH": "/usr/bin:/bin", "HOME": str(tmp_path), **variables}
    done = subprocess.run([sys.executable, "-c", FETCH], env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_a_file_is_downloaded_once_and_then_read_from_the_cache_without_a_network(tmp_path, serve, exchange):
    hub = serve({"exchange_rate/exchange_rate.csv": exchange, "weather/weather.csv": b"date,a"})
    endpoint = f"http://127.0.0.1:{hub.server_port}"
    first = fetch(tmp_path, endpoint)
    assert hub.downloads == ["exchange_rate/exchange_rate.csv"]
    assert len(set(first.split())) == 1
    assert len(first.split()[0]) == 64
    assert fetch(tmp_path, endpoint) == first
    assert len(hub.downloads) == 1
    assert fetch(tmp_path, endpoint, HF_HUB_OFFLINE="1") == first


@pytest.mark.slow
def test_a_file_that_moved_inside_the_repository_is_found_by_its_name(tmp_path, serve, exchange):
    hub = serve({"README.md": b"", "dataset/exchange_rate.csv": exchange})
    assert len(set(fetch(tmp_path, f"http://127.0.0.1:{hub.server_port}").split())) == 1
    assert hub.downloads == ["dataset/exchange_rate.csv"]


@pytest.mark.slow
def test_what_the_hub_does_not_have_or_no_network_reaches_is_one_line(tmp_path, serve):
    hub = serve({"README.md": b""})
    said = fetch(tmp_path, f"http://127.0.0.1:{hub.server_port}")
    assert said.startswith("refused: exchange_rate/exchange_rate.csv could not be had from the hub's")
    assert "it holds 0 files of the name exchange_rate.csv; download it yourself and pass --data-dir DIR" in said
    offline = fetch(tmp_path, "http://127.0.0.1:1", HF_HUB_OFFLINE="1")
    assert offline.startswith("refused: exchange_rate/exchange_rate.csv could not be had")
    assert offline.count("\n") == 1

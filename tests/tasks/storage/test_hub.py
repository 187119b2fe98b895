"""Downloading from the hub: its real client against a small local server that answers like the hub."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import pytest

from tasks.storage import hub as hub_client
from tests.tasks.errors import error_of
from tests.tasks.series.series_files import write_exchange

REPO = "thuml/Time-Series-Library"
FETCH = """
import sys
from tasks.series.published import Exchange
from tasks.base import DataError
try:
    task = Exchange()
    task.load()
    print(task.fingerprint, task.info().fingerprint)
except DataError as error:
    print("refused:", error)
"""


@pytest.fixture
def exchange(tmp_path):
    return write_exchange(tmp_path / "made").read_bytes()


def fetch(tmp_path: Path, endpoint: str, **variables: str) -> str:
    """Loads the task `exchange` in a separate process, since the client reads its settings when it is imported."""
    environment = {
        "HF_ENDPOINT": endpoint,
        "HF_HOME": str(tmp_path / "hf"),
        "PATH": "/usr/bin:/bin",
        "HOME": str(tmp_path),
        **variables,
    }
    done = subprocess.run(
        [sys.executable, "-c", FETCH], env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_a_file_is_downloaded_once_and_then_read_from_the_cache_offline(tmp_path, serve, exchange):
    hub = serve({REPO: {"exchange_rate/exchange_rate.csv": exchange, "weather/weather.csv": b"date,a"}})
    first = fetch(tmp_path, hub.endpoint)
    assert hub.downloads == ["exchange_rate/exchange_rate.csv"]
    assert len(set(first.split())) == 1
    assert len(first.split()[0]) == 64
    assert fetch(tmp_path, hub.endpoint) == first
    assert len(hub.downloads) == 1
    assert fetch(tmp_path, hub.endpoint, HF_HUB_OFFLINE="1") == first


@pytest.mark.slow
def test_a_file_that_moved_within_the_repository_is_found_by_its_name(tmp_path, serve, exchange):
    hub = serve({REPO: {"README.md": b"", "dataset/exchange_rate.csv": exchange}})
    assert len(set(fetch(tmp_path, hub.endpoint).split())) == 1
    assert hub.downloads == ["dataset/exchange_rate.csv"]


@pytest.mark.slow
def test_a_missing_file_and_a_missing_network_are_reported_with_a_suggestion(tmp_path, serve):
    hub = serve({REPO: {"README.md": b""}})
    missing = fetch(tmp_path, hub.endpoint)
    assert f"{REPO}: it has 0 files named exchange_rate.csv" in missing
    offline = fetch(tmp_path, "http://127.0.0.1:1", HF_HUB_OFFLINE="1")
    for output in (missing, offline):
        assert output.startswith("refused: exchange_rate/exchange_rate.csv ")
        assert "pass --data-dir DIR" in output
        assert output.count("\n") == 1


@pytest.mark.parametrize("hash_name", ["sha256", "git"])
def test_a_downloaded_file_that_has_changed_is_refused(tmp_path, monkeypatch, hash_name):
    monkeypatch.setenv("SUITE_CACHE", str(tmp_path / "cache"))
    content = b"date,a\n"
    hashed = hashlib.sha256(content) if hash_name == "sha256" else hashlib.sha1(b"blob 7\0" + content)
    blob = tmp_path / "blobs" / hashed.hexdigest()
    blob.parent.mkdir()
    blob.write_bytes(content)
    link = tmp_path / "snapshots" / "weather.csv"
    link.parent.mkdir()
    link.symlink_to(blob)
    assert hub_client.verify(link) == link
    blob.write_bytes(b"date,b\n")
    message = error_of(lambda: hub_client.verify(link))
    assert f"delete {blob} to download it again" in message


def test_a_file_whose_hash_is_unknown_is_used_as_it_is(tmp_path):
    path = tmp_path / "weather.csv"
    path.write_bytes(b"date,a\n")
    assert hub_client.verify(path) == path

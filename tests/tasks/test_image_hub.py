"""Images from the hub: its real client against a small server on this machine."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tests.tasks.test_hub import Hub, _Answer

LOAD = """
import sys, tasks
from tasks.base import DataError
try:
    task = tasks.get(sys.argv[1])()
    task.prepare()
    print(task.info().splits, task.fingerprint)
except DataError as error:
    print("refused:", error)
"""


class _Gate(_Answer):
    """A data set whose terms the user has not accepted."""

    def _answer(self, *, body: bool) -> None:
        self._send(403, b"Access to this dataset is restricted", body, {"X-Error-Code": "GatedRepo"})


@pytest.fixture
def hub(cifar_folder):
    """A hub with uoft-cs/cifar10."""
    files = {str(path.relative_to(cifar_folder)): path.read_bytes() for path in cifar_folder.rglob("*.parquet")}
    made = Hub(files)
    threading.Thread(target=made.serve_forever, daemon=True).start()
    yield made
    made.shutdown()
    made.server_close()


def prepare(tmp_path: Path, task: str, hub: Hub, **variables: str) -> str:
    """Prepares a task in a process of its own: the client reads its settings when it is imported."""
    environment = {
        "HF_ENDPOINT": f"http://127.0.0.1:{hub.server_port}", "HF_HOME": str(tmp_path / "hf"), "SUITE_CACHE": str(tmp_path / "cache"),
        "HOME": str(tmp_path), "PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1", **variables,
    }  # fmt: skip
    done = subprocess.run([sys.executable, "-c", LOAD, task], env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_cifar10_is_downloaded_once_by_its_name_and_then_read_without_a_network(tmp_path, hub):
    first = prepare(tmp_path, "cifar10", hub)
    assert first.startswith("{'train': 110, 'valid': 10, 'test': 40}")
    assert sorted(hub.downloads) == ["plain_text/test-00000-of-00001.parquet", "plain_text/train-00000-of-00001.parquet"]
    assert prepare(tmp_path, "cifar10", hub, HF_HUB_OFFLINE="1") == first
    assert len(hub.downloads) == 2


@pytest.mark.slow
def test_a_gated_data_set_tells_how_to_get_in(tmp_path, hub):
    hub.RequestHandlerClass = _Gate
    said = prepare(tmp_path, "imagenet1k", hub)
    assert said.startswith("refused: data/train-00000-of-00294.parquet could not be had from the hub's ILSVRC/imagenet-1k")
    assert "ILSVRC/imagenet-1k is gated: accept its terms on its page of the hub and log in (hf auth login)" in said
    assert said.count("\n") == 1

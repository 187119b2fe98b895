"""Images from the hub: its real client against a small local server."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

import tasks
from tasks.base import DataError
from tasks.images import hub_parquet
from tasks.images.file_task import FileImageTask
from tests.tasks.errors import error_of
from tests.tasks.storage.hub_server import HubServer, _Answer, files_below

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
def hub(serve, cifar_folder):
    """A hub with uoft-cs/cifar10."""
    return serve({"uoft-cs/cifar10": files_below(cifar_folder)})


def prepare(tmp_path: Path, task: str, hub: HubServer, **variables: str) -> str:
    """Prepares a task in a separate process, since the client reads its settings when it is imported."""
    environment = {
        "HF_ENDPOINT": hub.endpoint,
        "HF_HOME": str(tmp_path / "hf"),
        "SUITE_CACHE": str(tmp_path / "cache"),
        "HOME": str(tmp_path),
        "PATH": "/usr/bin:/bin",
        "OMP_NUM_THREADS": "1",
        **variables,
    }
    done = subprocess.run(
        [sys.executable, "-c", LOAD, task], env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def disk_space(tmp_path, monkeypatch):
    """Sets the free GB on the disks of the hub's cache ("theirs") and the suite's ("ours"); lists requested files."""
    monkeypatch.setenv("SUITE_CACHE", str(tmp_path / "ours"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "theirs" / "hub"))
    requested = []

    def fetch(repo: str, file: str) -> Path:
        requested.append(file)
        raise DataError("requested")

    monkeypatch.setattr("tasks.storage.hub.fetch", fetch)
    monkeypatch.setattr("tasks.storage.hub.check_access", lambda repo, file: None)

    def set_free(theirs: float, ours: float | None = None) -> list[str]:
        """`ours`: None if one disk has both folders."""
        (tmp_path / "theirs").mkdir(exist_ok=True)

        def usage(path: Path) -> SimpleNamespace:
            return SimpleNamespace(free=1e9 * (theirs if ours is None or "theirs" in Path(path).parts else ours))

        monkeypatch.setattr(shutil, "disk_usage", usage)
        if ours is not None:
            monkeypatch.setattr(hub_parquet, "_disk_number", lambda folder: int("theirs" in folder.parts))
        return requested

    return set_free


@pytest.mark.parametrize(
    ("name", "download", "copied"),
    [("imagenet1k", "145,000", "145,000"), ("imagenet100", "145,000", "14,500"), ("cifar10", "144", "144")],
)
def test_download_and_copy_are_announced_with_folders_before_the_first_file(
    tmp_path, disk_space, capsys, name, download, copied
):
    requested = disk_space(1000)
    task = tasks.get(name)()
    assert isinstance(task, FileImageTask)
    assert task.hub is not None
    note = task.prepare_note()
    if name != "cifar10":  # a run downloads CIFAR, but only `prepare` the others
        assert note == ""
        assert error_of(task.prepare).startswith("requested")
        note = capsys.readouterr().err
    downloads, copies = note.split(";", 1)
    for part in (f" {download} MB ", task.hub.repo, str(tmp_path / "theirs" / "hub")):
        assert part in downloads
    for part in (f" {copied} MB ", str(tmp_path / "ours" / "images")):
        assert part in copies
    assert len(requested) == (name != "cifar10")


@pytest.mark.parametrize(
    ("name", "free", "enough"),
    [
        ("imagenet1k", (200,), False),
        ("imagenet1k", (330,), True),
        ("imagenet100", (170,), False),
        ("imagenet100", (180,), True),
        ("imagenet1k", (170, 170), True),
        ("imagenet1k", (170, 150), False),
        ("imagenet1k", (150, 170), False),
        ("imagenet100", (170, 20), True),
        ("imagenet100", (170, 15), False),
    ],
)
def test_free_space_for_download_and_copy_is_checked_before_the_first_file(
    tmp_path, disk_space, capsys, name, free, enough
):
    requested = disk_space(*free)
    message = error_of(tasks.get(name)().prepare)
    assert requested == (["data/train-00000-of-00294.parquet"] if enough else [])
    assert bool(capsys.readouterr().err) == enough  # a download that cannot start is not announced
    if enough:
        assert message.startswith("requested")
    else:
        assert message.startswith("ILSVRC/imagenet-1k ")
        assert (str(tmp_path / "theirs") in message) == (len(free) == 1 or free[0] == 150)
        assert (str(tmp_path / "ours") in message) == (len(free) == 1 or free[0] == 170)
        for part in (f" {min(free)},000 MB free", "HF_HUB_CACHE or SUITE_CACHE", "--data-dir DIR"):
            assert part in message


@pytest.mark.slow
def test_cifar10_is_downloaded_once_and_then_read_offline(tmp_path, hub):
    first = prepare(tmp_path, "cifar10", hub)
    assert first.startswith("{'train': 110, 'valid': 10, 'test': 40}")
    assert sorted(hub.downloads) == [
        "plain_text/test-00000-of-00001.parquet",
        "plain_text/train-00000-of-00001.parquet",
    ]
    assert prepare(tmp_path, "cifar10", hub, HF_HUB_OFFLINE="1") == first
    assert len(hub.downloads) == 2


@pytest.mark.slow
def test_the_error_about_a_gated_data_set_explains_how_to_get_access(tmp_path, hub):
    hub.RequestHandlerClass = _Gate
    output = prepare(tmp_path, "imagenet1k", hub)
    assert output.startswith("refused: data/train-00000-of-00294.parquet ")
    for part in ("ILSVRC/imagenet-1k is gated", "accept its terms", "hf auth login"):
        assert part in output
    assert output.count("\n") == 1


@pytest.mark.parametrize("name", ["imagenet1k", "imagenet100"])
def test_without_access_nothing_is_announced_and_no_disk_space_checked(monkeypatch, capsys, name):
    def usage(path: Path) -> SimpleNamespace:
        raise AssertionError("the disk was checked")

    monkeypatch.setattr(shutil, "disk_usage", usage)
    assert "hf auth login" in error_of(tasks.get(name)().prepare)  # there is no network
    assert capsys.readouterr().err == ""

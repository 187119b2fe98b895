"""Images from the hub: its real client against a small server on this machine."""

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
    """Prepares a task in a process of its own: the client reads its settings when it is imported."""
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
def room(tmp_path, monkeypatch):
    """Sets the GB that are free on the disks "theirs" and "ours" of the hub's cache and of the suite's, and keeps what
    is fetched.
    """
    monkeypatch.setenv("SUITE_CACHE", str(tmp_path / "ours"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "theirs" / "hub"))
    asked = []

    def fetch(repo: str, file: str) -> Path:
        asked.append(file)
        raise DataError("it was asked for")

    monkeypatch.setattr("tasks.storage.hub.fetch", fetch)
    monkeypatch.setattr("tasks.storage.hub.check_access", lambda repo, file: None)

    def set_free(theirs: float, ours: float | None = None) -> list[str]:
        """`ours`: None where one disk has both."""
        (tmp_path / "theirs").mkdir(exist_ok=True)

        def usage(path: Path) -> SimpleNamespace:
            return SimpleNamespace(free=1e9 * (theirs if ours is None or "theirs" in Path(path).parts else ours))

        monkeypatch.setattr(shutil, "disk_usage", usage)
        if ours is not None:
            monkeypatch.setattr(hub_parquet, "_disk", lambda folder: int("theirs" in folder.parts))
        return asked

    return set_free


@pytest.mark.parametrize(
    ("name", "download", "kept"),
    [("imagenet1k", "145,000", "145,000"), ("imagenet100", "145,000", "14,500"), ("cifar10", "144", "144")],
)
def test_what_is_downloaded_and_what_is_kept_again_is_told_with_both_folders_before_the_first_file(
    tmp_path, room, capsys, name, download, kept
):
    asked = room(1000)
    task = tasks.get(name)()
    told = task.prepare_note()
    if name != "cifar10":  # which a run fetches; the others only `prepare` does
        assert told == ""
        with pytest.raises(DataError, match="it was asked for"):
            task.prepare()
        told = capsys.readouterr().err
    assert f"about {download} MB come from the hub's {task.hub.repo} to {tmp_path / 'theirs' / 'hub'};" in told
    assert f"; about {kept} MB are kept again in {tmp_path / 'ours' / 'images'}" in told
    assert len(asked) == (name != "cifar10")


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
def test_room_for_the_download_and_for_what_is_kept_of_it_is_asked_for_before_the_first_file(
    tmp_path, room, capsys, name, free, enough
):
    asked = room(*free)
    with pytest.raises(DataError) as caught:
        tasks.get(name)().prepare()
    assert asked == (["data/train-00000-of-00294.parquet"] if enough else [])
    message = str(caught.value)
    assert bool(capsys.readouterr().err) == enough  # nothing comes where there is no room
    if enough:
        assert "it was asked for" in message
    else:
        assert message.startswith("ILSVRC/imagenet-1k takes about ")
        assert (str(tmp_path / "theirs") in message) == (len(free) == 1 or free[0] == 150)
        assert (str(tmp_path / "ours") in message) == (len(free) == 1 or free[0] == 170)
        assert f" {min(free)},000 MB left; make room" in message
        assert "\n" not in message


@pytest.mark.slow
def test_cifar10_is_downloaded_once_by_its_name_and_then_read_without_a_network(tmp_path, hub):
    first = prepare(tmp_path, "cifar10", hub)
    assert first.startswith("{'train': 110, 'valid': 10, 'test': 40}")
    assert sorted(hub.downloads) == [
        "plain_text/test-00000-of-00001.parquet",
        "plain_text/train-00000-of-00001.parquet",
    ]
    assert prepare(tmp_path, "cifar10", hub, HF_HUB_OFFLINE="1") == first
    assert len(hub.downloads) == 2


@pytest.mark.slow
def test_a_gated_data_set_tells_how_to_get_in(tmp_path, hub):
    hub.RequestHandlerClass = _Gate
    said = prepare(tmp_path, "imagenet1k", hub)
    assert said.startswith(
        "refused: data/train-00000-of-00294.parquet could not be had from the hub's ILSVRC/imagenet-1k"
    )
    assert "ILSVRC/imagenet-1k is gated: accept its terms on its page of the hub and log in (hf auth login)" in said
    assert said.count("\n") == 1


@pytest.mark.parametrize("name", ["imagenet1k", "imagenet100"])
def test_where_the_hub_lets_nobody_in_nothing_is_announced_and_no_room_asked_for(monkeypatch, capsys, name):
    def usage(path: Path) -> SimpleNamespace:
        raise AssertionError("the disk was looked at")

    monkeypatch.setattr(shutil, "disk_usage", usage)
    with pytest.raises(DataError, match=r"could not be had .*hf auth login"):
        tasks.get(name)().prepare()  # without a network
    assert capsys.readouterr().err == ""

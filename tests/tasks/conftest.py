"""Fixtures of the task tests: loaded embedded tasks, small data sets in every layout, and a local hub."""

from __future__ import annotations

import shutil
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import tasks
from tasks.images.imagenet import class_list
from tests.tasks.images.image_files import write_cifar10
from tests.tasks.storage.hub_server import HubServer
from tests.tasks.text.corpus_files import write_wikitext

EMBEDDED = ("sotu", "fashion-mnist", "household-power")


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def embedded_tasks():
    """The embedded tasks, loaded, with their default options, by name."""
    loaded = {name: tasks.get(name)() for name in EMBEDDED}
    for task in loaded.values():
        task.load()
    return loaded


def save_image(path: Path, mode: str, width: int, height: int, seed: int) -> None:
    """Saves a smooth random image of the given mode in the format of the suffix."""
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 256, (4, 4, 3), dtype=np.uint8)).resize((width, height))
    image = small.convert("P", palette=Image.Palette.ADAPTIVE) if mode == "P" else small.convert(mode)
    if mode == "P":
        image.save(path, transparency=bytes([0, 128, 255]))
    else:
        image.save(path)


@pytest.fixture(scope="session")
def _image_folder(tmp_path_factory):
    """ImageNet-100 with train/ (3 images per class) and val/ (2): JPEG and PNG files of all modes and mixed sizes."""
    root = tmp_path_factory.mktemp("imagenet100")
    kinds = [
        ("RGB", "JPEG"),
        ("L", "jpg"),
        ("CMYK", "jpeg"),
        ("P", "png"),
        ("RGBA", "png"),
        ("LA", "png"),
        ("1", "png"),
    ]
    for part, count in (("train", 3), ("val", 2)):
        for label, name in enumerate(class_list()):
            folder = root / part / name
            folder.mkdir(parents=True)
            for i in range(count):
                seed = 1000 * label + 10 * count + i
                mode, suffix = kinds[seed % len(kinds)] if i else ("RGB", "JPEG")
                save_image(folder / f"{name}_{i}.{suffix}", mode, 24 + seed % 37, 20 + seed % 53, seed)
    return root


@pytest.fixture(scope="session")
def _cifar_folder(tmp_path_factory):
    """The hub's folder of uoft-cs/cifar10, with 12 + 4 images per class."""
    return write_cifar10(tmp_path_factory.mktemp("cifar10"), 12, 4)


@pytest.fixture(scope="session")
def _wikitext_folder(tmp_path_factory):
    """The hub's folder of WikiText-2, with the published number of rows."""
    return write_wikitext(tmp_path_factory.mktemp("wikitext"))


@pytest.fixture
def wikitext_folder(_wikitext_folder):
    """WikiText-2, for reading only."""
    return _wikitext_folder


@pytest.fixture
def image_folder(_image_folder):
    """The small ImageNet-100, for reading only."""
    return _image_folder


@pytest.fixture
def cifar_folder(_cifar_folder):
    """The small CIFAR-10, for reading only."""
    return _cifar_folder


@pytest.fixture
def own_image_folder(_image_folder, tmp_path):
    """A copy of the small ImageNet-100 that a test may damage."""
    return Path(shutil.copytree(_image_folder, tmp_path / "images"))


@pytest.fixture
def serve():
    """Starts a server that answers like the hub, with the given repositories."""
    started = []

    def start(repositories) -> HubServer:
        server = HubServer(repositories)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        started.append(server)
        return server

    yield start
    for server in started:
        server.shutdown()
        server.server_close()

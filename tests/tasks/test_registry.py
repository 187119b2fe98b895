"""The registry of tasks: names, near names, and imports that cost nothing."""

from __future__ import annotations

import subprocess
import sys

import pytest

import tasks
from tasks.base import DataError, Task


def test_every_name_gives_a_task_that_knows_its_name_and_its_spec_without_data():
    for name in tasks.names():
        task = tasks.get(name)()
        assert isinstance(task, Task)
        assert task.name == name
        assert task.protocol == f"{name}/{task.version}"
        assert task.spec is not None
        assert task.primary == task.metrics[0]


def test_when_a_name_is_misspelt_then_the_nearest_one_is_suggested_in_one_line():
    with pytest.raises(
        tasks.UnknownTask, match=r"unknown task 'fashionmnist'; did you mean 'fashion-mnist'\?"
    ) as caught:
        tasks.get("fashionmnist")
    assert "\n" not in str(caught.value)
    assert isinstance(caught.value, DataError)


def test_when_nothing_is_near_then_all_names_are_listed():
    with pytest.raises(tasks.UnknownTask, match="sotu, fashion-mnist, cifar10, cifar100, imagenet100"):
        tasks.get("zzzzzz")


def modules_loaded_by(code: str) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys\nprint(*sys.modules)"], capture_output=True, text=True, check=True
    )
    return set(done.stdout.split())


def test_listing_the_names_imports_no_heavy_library():
    assert not modules_loaded_by("import tasks; tasks.names()") & {
        "torch",
        "numpy",
        "pandas",
        "torchvision",
        "timm",
        "gluonts",
    }


@pytest.mark.slow
def test_embedded_tasks_train_and_specs_are_known_without_large_optional_libraries():
    code = """
import tasks
tasks.get('imagenet100')().spec
for name in ('sotu', 'fashion-mnist', 'household-power'):
    next(tasks.get(name)().train_batches(0, 4))
"""
    assert not modules_loaded_by(code) & {"pandas", "torchvision", "timm", "gluonts", "datasets"}


FROM_FILES = [name for name in tasks.names() if tasks.built_in(name) and tasks.get(name).needs_data_dir]


@pytest.mark.parametrize("name", FROM_FILES)
def test_a_task_downloads_where_its_class_declares_it_or_names_the_way_out(name, monkeypatch, tmp_path):
    """Without a folder: a run asks the hub, or names `suite data prepare`, or names `--data-dir`."""

    def asked(*_, **__):
        raise ConnectionError("the hub was asked")

    for variable in ("SUITE_CACHE", "HOME"):
        monkeypatch.setenv(variable, str(tmp_path))
    monkeypatch.setattr("tasks.storage.hub._download", asked)
    monkeypatch.setattr("tasks.storage.hub.newest_commit", asked)
    monkeypatch.setattr("tasks.storage.hub.check_access", asked)
    monkeypatch.setattr("tasks.storage.hub.cached", lambda *_, **__: None)
    cls = tasks.get(name)
    with pytest.raises((DataError, ConnectionError)) as caught:
        cls().load()
    message = str(caught.value)
    assert ("the hub was asked" in message) == (cls.downloads == "run"), message
    assert ("suite data prepare" in message) == (cls.downloads == "prepare"), message
    assert "--data-dir" in message or cls.downloads == "run", message

"""Fixtures of the tracking tests: an embedded store in each test's own folder."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from suite.tracking.store import Store
from suite.tracking.store_address import tracking_uri


@pytest.fixture(autouse=True)
def _embedded_store_by_default(monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory) -> Path:
    """A folder with an empty store, to be copied: creating one takes seconds."""
    folder: Path = tmp_path_factory.mktemp("store")
    Store(folder, tracking_uri(folder))
    return folder


@pytest.fixture
def home(tmp_path, empty_store) -> Path:
    """A runs folder with an embedded store. Its name has a space and a character that URLs escape."""
    return Path(shutil.copytree(empty_store, tmp_path / "my runs #1"))

"""One PostgreSQL and one tracking server for all tests of this folder that ask for them."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

import pytest

from suite.tracking.store import Store
from tests.scale.postgres import Postgres, postgres
from tests.scale.tracking_server import TrackingServer, tracking_server


@pytest.fixture(scope="session")
def database() -> Iterator[Postgres]:
    with postgres() as server:
        yield server


@pytest.fixture(scope="session")
def server(database, tmp_path_factory) -> Iterator[TrackingServer]:
    with tracking_server(tmp_path_factory.mktemp("server") / "server", database.uri()) as running:
        yield running


@pytest.fixture(autouse=True)
def _no_store_of_the_user(monkeypatch):
    for name in ("URI", "USERNAME", "PASSWORD"):
        monkeypatch.delenv(f"MLFLOW_TRACKING_{name}", raising=False)


@pytest.fixture
def stored(database, monkeypatch, tmp_path) -> Iterator[str]:
    """A database of this test with MLflow's tables, which `MLFLOW_TRACKING_URI` names; its name."""
    name = f"doctor_{os.getpid()}_{time.monotonic_ns()}"
    if not database.sql("select 1 from pg_database where datname = 'made'"):
        database.sql("create database made")
        Store(tmp_path, database.uri("made")).boards()
        # whoever is connected to a database keeps others from copying it
        database.sql("select pg_terminate_backend(pid) from pg_stat_activity where datname = 'made'", "postgres")
    database.sql(f"create database {name} template made")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", database.uri(name))
    yield name
    database.sql(f"drop database {name} with (force)")

"""Opening a store that is a database: one process at a time, without waiting for one that is away."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock

from suite.tracking.store_address import is_embedded

_LOCK_S = 120.0


@contextmanager
def exclusive(home: Path, uri: str) -> Iterator[None]:
    """Lets one process at a time open an embedded store, because MLflow migrates its database without a lock.

    Args:
        home: the runs folder, which is made where it is missing.
        uri: of the store; another than an embedded one has no lock.

    Yields:
        Nothing.

    Raises:
        TimeoutError: another process holds the lock for two minutes.
    """
    if not is_embedded(uri):
        yield
        return
    home.mkdir(parents=True, exist_ok=True)
    with FileLock(str(home / ".mlflow.lock"), timeout=_LOCK_S):
        yield


def connect_once(uri: str) -> None:
    """Raises the driver's error where a database cannot be reached, which MLflow would try ten times, for 100 s.

    Args:
        uri: the database's address, as SQLAlchemy writes it.
    """
    from sqlalchemy import create_engine
    from sqlalchemy.pool import NullPool

    create_engine(uri, poolclass=NullPool).connect().close()


def enable_write_ahead_log(uri: str) -> None:
    """With a write-ahead log, readers (the UI) and one writer do not block each other. The mode is kept in the file.

    Args:
        uri: of an embedded store.
    """
    connection = sqlite3.connect(uri.removeprefix("sqlite:///"), timeout=_LOCK_S)
    try:
        if connection.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
            connection.execute("PRAGMA journal_mode=WAL")
    finally:
        connection.close()

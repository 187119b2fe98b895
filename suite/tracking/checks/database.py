"""Checks of a store that is a database: SQLite or PostgreSQL. What they write they roll back."""

from __future__ import annotations

import time
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from suite.errors import first_line
from suite.tracking.checks import postgresql, sqlite
from suite.tracking.checks.finding import Finding, finding
from suite.tracking.error_messages import explain
from suite.tracking.store import schema_versions
from suite.tracking.store_address import is_embedded, public_uri

if TYPE_CHECKING:
    from sqlalchemy import Connection

CONNECT_S = 10
#: The indexes without which listing runs reads whole tables: of each table, the first columns of one.
NEEDED = {
    "metrics": (("run_uuid",),),
    "latest_metrics": (("run_uuid",), ("key", "run_uuid")),
    "params": (("run_uuid",), ("key", "run_uuid")),
    "tags": (("run_uuid",), ("key", "run_uuid")),
}


def check_database(home: Path, uri: str) -> list[Finding]:
    """Checks a database.

    Args:
        home: the runs folder.
        uri: the database's address, as SQLAlchemy writes it.

    Returns:
        One finding per check; where the database cannot be reached, the first one only.
    """
    if is_embedded(uri) and not sqlite.file_of(uri).exists():
        return [finding("connection", f"{public_uri(uri)} does not exist yet: the first run creates it")]
    from sqlalchemy import create_engine
    from sqlalchemy.pool import NullPool

    timeout = {"timeout": CONNECT_S} if is_embedded(uri) else {"connect_timeout": CONNECT_S}
    began = time.monotonic()
    try:
        engine = create_engine(uri, poolclass=NullPool, connect_args=timeout)
        with engine.connect() as connection:
            return [_connection(connection, uri, began), *_checks(connection, home, uri)]
    except Exception as error:  # drivers raise their own types, and a missing one an ImportError
        to_do = "start it, or set MLFLOW_TRACKING_URI to its address with a user that may use it"
        return [finding("connection", explain(error, public_uri(uri)), to_do)]


def _connection(connection: Connection, uri: str, began: float) -> Finding:
    version = ".".join(str(number) for number in connection.dialect.server_version_info or ())
    took = 1000 * (time.monotonic() - began)
    return finding("connection", f"{connection.dialect.name} {version} at {public_uri(uri)}, opened in {took:.0f} ms")


def _checks(connection: Connection, home: Path, uri: str) -> list[Finding]:
    from sqlalchemy import inspect

    tables = inspect(connection).get_table_names()
    kind = sqlite if is_embedded(uri) else postgresql
    if "runs" not in tables:
        empty = finding("schema version", "no tables yet: the first run, or the MLflow server, creates them")
        return [empty, kind.connection_limits(connection, uri), _may_create(connection), _artifacts(home)]
    return [
        _schema(connection, uri),
        _indexes(connection),
        kind.connection_limits(connection, uri),
        _may_write(connection),
        _artifacts(home),
    ]


def _schema(connection: Connection, uri: str) -> Finding:
    from sqlalchemy import text

    found = connection.execute(text("select version_num from alembic_version")).scalar()
    known = schema_versions()
    if found == known[-1]:
        return finding("schema version", f"{found}, which this MLflow reads and writes")
    if found in known:
        missing = len(known) - 1 - known.index(str(found))
        to_do = f"back the database up, then: mlflow db upgrade {public_uri(uri)} (with user and password)"
        return finding("schema version", f"{found}, {missing} before {known[-1]}, which this MLflow needs", to_do)
    to_do = "install the version of MLflow that made it (the server's)"
    return finding("schema version", f"{found} is of a newer MLflow than this one, which needs {known[-1]}", to_do)


def _indexes(connection: Connection) -> Finding:
    missing, count = _missing(connection), sum(len(each) for each in NEEDED.values())
    if not missing:
        return finding("indexes", f"the {count} that listing runs needs")
    statements = "; ".join(
        f"create index index_{table}_{'_'.join(first)} on {table} ({', '.join(first)})" for table, first in missing
    )
    found = f"{len(missing)} of {count} are missing, so that lists of runs are slow"
    return finding("indexes", found, f"run in SQL: {statements}")


def _missing(connection: Connection) -> list[tuple[str, tuple[str, ...]]]:
    from sqlalchemy import inspect

    inspector = inspect(connection)
    found = list[tuple[str, tuple[str, ...]]]()
    for table, needed in NEEDED.items():
        present = [tuple(each["column_names"]) for each in inspector.get_indexes(table)]
        present.append(tuple(inspector.get_pk_constraint(table)["constrained_columns"]))
        found += [(table, first) for first in needed if not any(each[: len(first)] == first for each in present)]
    return found


def _may_write(connection: Connection) -> Finding:
    """Writes a row into each table that a run fills, then rolls back."""
    name, run = f"suite doctor {uuid.uuid4().hex}", uuid.uuid4().hex
    statements = (
        f"insert into experiments (name, lifecycle_stage) values ('{name}', 'active')",
        f"insert into runs (run_uuid, lifecycle_stage) values ('{run}', 'active')",
        f"insert into params (key, value, run_uuid) values ('a', 'b', '{run}')",
        f"insert into tags (key, value, run_uuid) values ('a', 'b', '{run}')",
        f"insert into metrics (key, value, timestamp, step, is_nan, run_uuid) values ('a', 1.0, 1, 1, false, '{run}')",
        "insert into latest_metrics (key, value, timestamp, step, is_nan, run_uuid) "
        f"values ('a', 1.0, 1, 1, false, '{run}')",
        f"update runs set status = 'FINISHED' where run_uuid = '{run}'",
        f"delete from tags where run_uuid = '{run}'",
    )
    return _tried(connection, statements, "a run was written and rolled back")


def _may_create(connection: Connection) -> Finding:
    statement = f"create table suite_doctor_{uuid.uuid4().hex} (a integer)"
    return _tried(connection, [statement], "a table was created and rolled back")


def _tried(connection: Connection, statements: Sequence[str], done: str) -> Finding:
    from sqlalchemy import text

    connection.rollback()  # of the transaction that the questions before have opened
    try:
        for statement in statements:
            connection.execute(text(statement))
    except Exception as error:  # the driver's own types
        user = connection.engine.url.username
        to_do = f"grant {user} select, insert, update and delete on all tables" if user else "make its file writable"
        return finding("write permission", first_line(getattr(error, "orig", None) or error), to_do)
    finally:
        connection.rollback()
    return finding("write permission", done)


def _artifacts(home: Path) -> Finding:
    """A store without a server keeps artifacts in the runs folder."""
    folder = home / "artifacts"
    probe = folder / f".suite-doctor-{uuid.uuid4().hex}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.write_text("", "utf-8")
        probe.unlink()
    except OSError as error:
        return finding("artifacts", f"{folder} cannot be written ({error.strerror})", "make it writable")
    return finding("artifacts", f"in {folder}, writable; other machines do not see them without a server")

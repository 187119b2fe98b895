"""Connection limits of PostgreSQL."""

from __future__ import annotations

from typing import TYPE_CHECKING

from suite.tracking.checks.finding import Finding, finding

if TYPE_CHECKING:
    from sqlalchemy import Connection

#: Connections that a process of an MLflow server opens at most: SQLAlchemy's pool of 5, and 10 more.
PER_PROCESS = 15
#: Free connections that are enough: two processes of a server.
ENOUGH = 2 * PER_PROCESS

_LIMITS = """
select current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int,
       (select count(*) from pg_stat_activity where backend_type = 'client backend'),
       (select datconnlimit from pg_database where datname = current_database()),
       (select count(*) from pg_stat_activity where datname = current_database()),
       (select rolconnlimit from pg_roles where rolname = current_user),
       (select count(*) from pg_stat_activity where usename = current_user)
"""


def connection_limits(connection: Connection, uri: str) -> Finding:
    """Compares the free connections of the server, of the database and of the user with what a tracking server needs.

    Args:
        connection: to the database.
        uri: its address.

    Returns:
        The finding.
    """
    from sqlalchemy import text

    limits = [int(number) for number in connection.execute(text(_LIMITS)).one()]
    places = (
        ("max_connections of the server", limits[0], limits[1]),
        ("connection limit of the database", limits[2], limits[3]),
        ("connection limit of the user", limits[4], limits[5]),
    )
    free, name, limit, used = min((limit - used, name, limit, used) for name, limit, used in places if limit >= 0)
    found = f"{limit} by the {name}, {used} in use, {free} free"
    if free >= ENOUGH:
        return finding("connection limits", f"{found}; a process of an MLflow server uses up to {PER_PROCESS}")
    to_do = f"raise the {name} so that {ENOUGH} are free, or end idle ones"
    return finding("connection limits", found, to_do)

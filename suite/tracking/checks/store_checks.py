"""`suite doctor --store`: the checks of the current store, by its kind."""

from __future__ import annotations

from pathlib import Path

from suite.tracking.checks.database import check_database
from suite.tracking.checks.finding import Finding
from suite.tracking.checks.server import check_server
from suite.tracking.store_address import is_server, tracking_uri


def check_store(home: Path) -> list[Finding]:
    """Checks the store that `MLFLOW_TRACKING_URI` names, or the embedded one.

    Args:
        home: the runs folder.

    Returns:
        One finding per check, in this order: connection, schema version, indexes, connection limits, write permission,
        artifacts. Where the store cannot be reached, the first one only.
    """
    uri = tracking_uri(home)
    return check_server(home, uri) if is_server(uri) else check_database(home, uri)

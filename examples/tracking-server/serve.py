"""Starts an MLflow server with basic authentication, runs and users in one PostgreSQL database, artifacts in a folder.

Addresses and passwords come from the environment, never from arguments, which every user of a machine can read:
`MLFLOW_BACKEND_STORE_URI` (postgresql+psycopg2://…), `MLFLOW_AUTH_ADMIN_USERNAME`, `MLFLOW_AUTH_ADMIN_PASSWORD`.
"""

from __future__ import annotations

import argparse
import os
import secrets
import sys
import tempfile
from pathlib import Path

REQUIRED = ("MLFLOW_BACKEND_STORE_URI", "MLFLOW_AUTH_ADMIN_USERNAME", "MLFLOW_AUTH_ADMIN_PASSWORD")
#: Seconds for which a worker remembers that a password was right. Without it, each request takes tens of milliseconds
#: longer; with it, another worker may accept an old password for that long.
CACHE_S = 60
#: Seconds within which a worker must answer its parent. By default 5, less than a busy machine needs to import MLflow.
HEALTH_S = 120


def main() -> None:
    options = parsed()
    if missing := [name for name in REQUIRED if not os.environ.get(name)]:
        sys.exit(f"error: {', '.join(missing)} not set; see README.md")
    config = written_config(os.environ["MLFLOW_BACKEND_STORE_URI"], options.permission)
    environment = {
        "MLFLOW_FLASK_SERVER_SECRET_KEY": secrets.token_hex(32),
        **os.environ,
        "MLFLOW_AUTH_CONFIG_PATH": str(config),
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # eight more processes, for functions that are not used here
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }
    environment.pop("MLFLOW_TRACKING_URI", None)
    arguments = ["--app-name", "basic-auth", "--host", options.host, "--port", options.port]
    arguments += ["--workers", options.workers, "--artifacts-destination", options.artifacts]
    arguments += ["--uvicorn-opts", f"--timeout-worker-healthcheck {HEALTH_S}"]
    os.execve(sys.executable, [sys.executable, "-m", "mlflow", "server", *arguments], environment)


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on")
    parser.add_argument("--port", default="5000")
    parser.add_argument("--workers", default="2", help="processes that answer requests")
    parser.add_argument("--artifacts", default="./artifacts", help="folder, or s3://bucket/folder")
    parser.add_argument(
        "--permission",
        default="MANAGE",
        choices=["MANAGE", "EDIT", "READ", "NO_PERMISSIONS"],
        help="of users for experiments that others created; publishing a board replaces rows, which needs MANAGE",
    )
    return parser.parse_args()


def written_config(database: str, permission: str) -> Path:
    """The configuration of MLflow's authentication in a file that only this user can read."""
    folder = Path(tempfile.mkdtemp(prefix="tracking-server-"))  # mode 700
    path = folder / "basic_auth.ini"
    path.write_text(
        "[mlflow]\n"
        f"default_permission = {permission}\n"
        f"database_uri = {database.replace('%', '%%')}\n"
        f"auth_cache_ttl_seconds = {CACHE_S}\n",
        "utf-8",
    )
    return path


if __name__ == "__main__":
    main()

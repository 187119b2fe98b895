"""Checks of an MLflow server, through its own interface: its database is out of sight."""

from __future__ import annotations

import os
import time
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path

from suite.tracking.checks.finding import Finding, finding
from suite.tracking.error_messages import explain
from suite.tracking.journal import now_ms
from suite.tracking.ranked_board import PLACE
from suite.tracking.store import Store
from suite.tracking.store_address import public_uri

#: What a check writes to, and deletes again: one experiment with one run, which MLflow keeps as deleted.
EXPERIMENT = "suite doctor"
SLOW_S = 2.0
#: Requests at the same time: of as many runs.
AT_ONCE = 8
_TO_DATABASE = "on the server's machine set MLFLOW_TRACKING_URI to its database and run suite doctor --store again"


def check_server(home: Path, uri: str) -> list[Finding]:
    """Checks a server.

    Args:
        home: the runs folder.
        uri: the server's address.

    Returns:
        One finding per check; where the server cannot be reached or denies access, the first one only.
    """
    try:
        store, began = Store(home, uri), time.monotonic()
        found = store.server_version()
        took = 1000 * (time.monotonic() - began)
        store.boards()  # which, unlike the version, needs a user and a password
    except Exception as error:  # MLflow and its client raise many types
        to_do = "start it, or correct MLFLOW_TRACKING_URI, MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
        return [finding("connection", explain(error, public_uri(uri)), to_do)]
    user = os.environ.get("MLFLOW_TRACKING_USERNAME")
    who = f"as {user}" if user else "without a user"
    connection = finding("connection", f"MLflow {found} at {public_uri(uri)} {who}, answers in {took:.0f} ms")
    return [connection, _version(found), _lists(store, uri), _at_once(store, uri), *_writes(store, uri)]


def _version(found: str) -> Finding:
    here = version("mlflow")
    if found.split(".")[:2] == here.split(".")[:2]:
        text = f"the server's own affair, which checks it when it starts; MLflow {found} there, {here} here"
        return finding("schema version", text)
    to_do = f"install {'.'.join(here.split('.')[:2])} there: saved views belong to a minor version"
    return finding("schema version", f"MLflow {found} on the server, {here} here", to_do)


def _lists(store: Store, uri: str) -> Finding:
    """Indexes cannot be seen through a server, but their lack can: lists are slow."""
    began = time.monotonic()
    try:
        count = len(store.first_runs(PLACE, 100))
    except Exception as error:
        return finding("indexes", explain(error, public_uri(uri)), _TO_DATABASE)
    took = time.monotonic() - began
    found = f"not visible through a server; it listed {count} runs, sorted by a metric, in {took:.2f} s"
    return finding("indexes", found, "" if took < SLOW_S else f"over {SLOW_S:.0f} s is slow: {_TO_DATABASE}")


def _at_once(store: Store, uri: str) -> Finding:
    began = time.monotonic()
    try:
        with ThreadPoolExecutor(AT_ONCE) as pool:
            list(pool.map(lambda _: store.boards(), range(AT_ONCE)))
    except Exception as error:
        to_do = "start it with more --workers, and raise max_connections of its database"
        return finding("connection limits", f"{AT_ONCE} requests at once: {explain(error, public_uri(uri))}", to_do)
    took = time.monotonic() - began
    return finding("connection limits", f"{AT_ONCE} requests at once were answered in {took:.2f} s")


def _writes(store: Store, uri: str) -> list[Finding]:
    """Writes a run and an artifact of it, and deletes them."""
    to_do = "let an administrator of the server grant this user EDIT, or MANAGE for suite publish"
    try:
        experiment = store.experiment(EXPERIMENT)
        runs = store.find_runs(experiment, "")
        run = runs[0].id if runs else store.create_run(experiment, EXPERIMENT, now_ms(), {})
        store.log_metrics(run, [("probe", 1.0, now_ms(), 0)])
    except Exception as error:
        return [finding("write permission", explain(error, public_uri(uri)), to_do)]
    done = finding("write permission", f"a run was written and deleted (experiment {EXPERIMENT!r})")
    try:
        store.log_text(run, "probe.txt", "")
        artifacts = finding("artifacts", "one was stored through the server")
    except Exception as error:
        to_store = "check --artifacts-destination of the server, and its credentials there"
        artifacts = finding("artifacts", explain(error, public_uri(uri)), to_store)
    try:
        store.delete_experiment(experiment)
    except Exception as error:
        done = finding(
            "write permission", f"a run was written but not deleted: {explain(error, public_uri(uri))}", to_do
        )
    return [done, artifacts]

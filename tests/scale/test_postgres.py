"""Tracking to a server with PostgreSQL: nothing is lost, everything works as with the embedded store, no secret shows.

The servers are real ones on 127.0.0.1. Where the programs of PostgreSQL are missing the tests fail.
"""

from __future__ import annotations

import base64
import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest

from suite.tracking import backlog
from suite.tracking.catch_up import catch_up
from suite.tracking.store import Store
from suite.tracking.store_address import tracking_uri
from suite.tracking.ui.state import VIEW_TAG
from tests.scale.commands import faults, suite, use
from tests.scale.logging_process import METRICS, value_of
from tests.scale.tracking_server import ADMIN, TrackingServer
from tests.suite.tiny import tiny_arguments
from tests.suite.tracking.tracked_runs import free_port, responds, wait_for

pytestmark = [pytest.mark.scale, pytest.mark.timeout(900)]

ROOT = Path(__file__).resolve().parents[2]
PROCESSES, STEPS = 8, 200
#: Of runs and rows: what differs between two runs of the same config in any store.
OF_A_RUN = ("suite.", "run", "mlflow.user", "mlflow.runName", "mlflow.note.content")


# --- eight processes ---------------------------------------------------------------------------------------------


def stored_points(uri: str) -> set[tuple[str, str, int, float]]:
    """(run, metric, step, value) of every point in a database."""
    from sqlalchemy import create_engine, text

    engine = create_engine(uri)
    query = (
        "select r.name, m.key, m.step, m.value from metrics m join runs r on r.run_uuid = m.run_uuid "
        "where r.name like 'run-%' and r.status = 'FINISHED'"
    )
    with engine.connect() as connection:
        found = [(str(row[0]), str(row[1]), int(row[2]), float(row[3])) for row in connection.execute(text(query))]
    engine.dispose()
    assert len(found) == len(set(found)), "a point is stored twice"
    return set(found)


def nothing_left(home: Path) -> bool:
    """Sends what is left, as the next command does; whether that was all."""
    with suppress(Exception):  # of a server that is still busy
        catch_up(home)
    return backlog.pending(home) == []


def log_at_once(home: Path) -> tuple[float, str]:
    """Eight processes log a run each at the same time; seconds until all have ended, and their warnings."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-m", "tests.scale.logging_process", str(home)]
    with ExitStack() as stack:
        processes = [
            stack.enter_context(
                subprocess.Popen(
                    [*command, str(run), str(STEPS)],
                    stdin=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    text=True,
                    cwd=ROOT,
                    env=environment,
                )
            )
            for run in range(PROCESSES)
        ]
        began = time.monotonic()
        for process in processes:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        warnings = [process.communicate(timeout=600)[1] for process in processes]
    assert [process.returncode for process in processes] == [0] * PROCESSES, warnings
    return time.monotonic() - began, "".join(warnings)


@pytest.mark.parametrize("kind", ["server", "embedded"])
def test_eight_processes_that_log_at_once_lose_no_metric(kind, database, request, monkeypatch, tmp_path):
    if kind == "server":
        use(monkeypatch, request.getfixturevalue("server").environment())
    home = tmp_path / "runs"
    seconds, warnings = log_at_once(home)
    late = len(backlog.pending(home))
    assert (late > 0) == ("the next command sends" in warnings), warnings
    wait_for(lambda: nothing_left(home), "the next command has sent what a busy server did not take in time")
    found = stored_points(database.uri() if kind == "server" else tracking_uri(home))
    sent = {
        (f"run-{run}", f"train/m{metric}", step, value_of(run, metric, step))
        for run in range(PROCESSES)
        for metric in range(METRICS)
        for step in range(STEPS)
    }
    line = f"{kind}: {len(sent)} points sent, {len(found & sent)} found, {seconds:.1f} s, {late} of 8 runs sent later"
    sys.stderr.write(f"\n{line}\n")
    assert len(sent) == PROCESSES * METRICS * STEPS
    assert found == sent


# --- the same as with the embedded store ---------------------------------------------------------------------------


def picture(home: Path, uri: str) -> dict[str, Any]:
    """What a store shows of the experiment of fashion-mnist, without ids, times and what belongs to one process."""
    client: Any = Store(home, uri)._client
    experiment = client.get_experiment_by_name("vision/fashion-mnist")
    runs = client.search_runs([experiment.experiment_id], "")
    return {
        "views": {name: text for name, text in experiment.tags.items() if name.startswith(VIEW_TAG)},
        "runs": {
            run.info.run_name: {
                "status": run.info.status,
                "tags": {name for name in run.data.tags if not name.startswith(OF_A_RUN)},
                "params": {n: text for n, text in run.data.params.items() if not n.startswith(("hardware", "timing"))},
                "metrics": set(run.data.metrics),
                "points": {
                    name: [(point.step, point.value) for point in client.get_metric_history(run.info.run_id, name)]
                    for name in ("train/loss", "test/top1", "place")
                    if name in run.data.metrics
                },
                "artifacts": {file.path for file in client.list_artifacts(run.info.run_id)},
                "datasets": [each.dataset.name for each in run.inputs.dataset_inputs],
            }
            for run in runs
        },
    }


def seen_in_process_lists(secrets: list[str], until: threading.Event) -> list[str]:
    """Command lines of any process that show a secret."""
    found = list[str]()
    while not until.wait(0.05):
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                line = path.read_bytes().decode("utf-8", "replace")
            except OSError:
                continue
            found += [line for secret in secrets if secret in line]
    return found


def test_a_run_publish_and_ui_on_a_server_are_those_of_the_embedded_store(database, server, monkeypatch, tmp_path):
    secrets, over, shown = [database.password, server.password], threading.Event(), list[str]()
    watch = threading.Thread(target=lambda: shown.extend(seen_in_process_lists(secrets, over)))
    watch.start()
    try:
        pictures = {}
        for kind, variables in (("embedded", {}), ("server", server.environment())):
            with pytest.MonkeyPatch.context() as patch:
                use(patch, variables)
                home = tmp_path / kind
                suite(home, *tiny_arguments("fashion-mnist", "fem"))
                published = json.loads(suite(home, "publish", "--json"))
                pictures[kind] = picture(home, tracking_uri(home))
                if kind == "server":
                    assert published["store"] == server.url
                    address = suite(home, "ui", "--no-browser", "--task", "fashion-mnist")
                    assert address.startswith(f"fashion-mnist: {server.url}/#/experiments/")
                    assert not (home / "mlflow.db").exists()
        assert pictures["server"] == pictures["embedded"]
        assert any(name.startswith(("#", "–")) for name in pictures["server"]["runs"])
    finally:
        over.set()
        watch.join()
    assert shown == []
    assert secrets_in(secrets, [tmp_path, server.log]) == []


def secrets_in(secrets: list[str], places: list[Path]) -> list[str]:
    """Files that contain a secret."""
    files = [path for place in places for path in ([place] if place.is_file() else place.rglob("*")) if path.is_file()]
    assert files
    return [str(path) for path in files if any(secret.encode() in path.read_bytes() for secret in secrets)]


def create_user(server: TrackingServer, name: str, password: str) -> None:
    """What `create_user` of MLflow's client sends."""
    credentials = base64.b64encode(f"{ADMIN}:{server.password}".encode()).decode()
    request = urllib.request.Request(
        f"{server.url}/api/2.0/mlflow/users/create",
        json.dumps({"username": name, "password": password}).encode(),
        {"Authorization": f"Basic {credentials}", "Content-Type": "application/json"},
    )
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=60) as answer:
        assert answer.status == 200


def test_a_second_user_tracks_and_publishes_to_the_same_experiments(server, monkeypatch, tmp_path):
    create_user(server, "second", "the password of the second")
    use(monkeypatch, server.environment("second", "the password of the second"))
    assert faults(tmp_path / "runs") == {}
    suite(tmp_path / "runs", *tiny_arguments("fashion-mnist", "softmax"))
    published = json.loads(suite(tmp_path / "runs", "publish", "--json"))
    assert published["rows"] == {"fashion-mnist": 1}


def test_the_ui_of_a_database_starts_a_server_that_shows_no_password(database, stored, monkeypatch, tmp_path):
    over, shown, port = threading.Event(), list[str](), free_port()
    watch = threading.Thread(target=lambda: shown.extend(seen_in_process_lists([database.password], over)))
    watch.start()
    home = tmp_path / "runs"
    home.mkdir()
    process = subprocess.Popen(
        [sys.executable, "-m", "suite", "ui", "--no-browser", "--port", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "SUITE_HOME": str(home)},
    )
    try:
        wait_for(lambda: responds(f"http://127.0.0.1:{port}/health"), "the UI responds")
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(60)
        finally:  # neither the server nor the watch outlives the test
            process.kill()
            over.set()
            watch.join()
    assert shown == []
    assert secrets_in([database.password], [home]) == []

"""`python -m tests.scale.store_of_ten_million`: how long a server with 2,000 runs and 10 million points lists a board.

It starts PostgreSQL and the server of `examples/tracking-server`, fills the database in bulk, and lists each of the
task's saved views as the UI does: the first 100 runs, filtered and sorted as the view says. Exit code 1 if the median
of a view is over two seconds. Not a test: filling takes minutes.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from suite.tracking.ranked_board import RankedBoard, RankedRow, SeedRun
from suite.tracking.store import Store
from suite.tracking.ui.state import VIEW_TAG, BoardView
from tests.scale.postgres import Postgres, postgres
from tests.scale.tracking_server import TrackingServer, tracking_server

EXPERIMENT, LIMIT_S, PAGE = "vision/fashion-mnist", 2.0, 100
METRICS, PARAMS, TAGS, SEEDS = 25, 60, 15, 8
#: Only writing becomes faster, of which no time is reported; what decides about reading is PostgreSQL's default.
SETTINGS = {"fsync": "off", "maintenance_work_mem": "512MB", "max_wal_size": "8GB", "autovacuum": "off"}
_INDEXES = ("index_metrics_run_uuid", "index_metrics_run_uuid_key_step")


@dataclass(frozen=True)
class View:
    """A search as the UI makes it from a saved view."""

    name: str
    query: str
    order: str


def main() -> None:
    parser = argparse.ArgumentParser(description="times the board's views of a large PostgreSQL store")
    parser.add_argument("--runs", type=int, default=2000)
    parser.add_argument("--points", type=int, default=200, help=f"points of each of a run's {METRICS} metrics")
    parser.add_argument("--repeat", type=int, default=9)
    parser.add_argument("--wait", action="store_true", help="waits for a line of input before it reads")
    options = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as name,
        postgres(SETTINGS) as database,
        tracking_server(Path(name) / "server", database.uri()) as server,
    ):
        began = time.monotonic()
        experiment = filled(database, Path(name), options.runs, options.points)
        report(database, time.monotonic() - began)
        if options.wait:
            sys.stdout.write("filled; press Enter to read\n")
            sys.stdout.flush()
            sys.stdin.readline()
        slowest = read(database, server, experiment, options.repeat)
    sys.exit(1 if slowest > LIMIT_S else 0)


def filled(database: Postgres, home: Path, runs: int, points: int) -> str:
    """Fills the database; the experiment's id."""
    store = Store(home, database.uri())
    experiment = store.experiment(EXPERIMENT, {"domain": "vision", "task": "fashion-mnist"})
    database.sql(
        "create table r as select i, md5(i::text) as id, 1700000000000 + i * 60000 as t "
        f"from generate_series(0, {runs - 1}) i"
    )
    database.sql(
        "insert into runs (run_uuid, name, source_type, source_name, user_id, status, start_time, end_time, "
        "lifecycle_stage, artifact_uri, experiment_id) select id, 'mixer-' || i / "
        f"{SEEDS} || ' · board · seed ' || i % {SEEDS}, 'LOCAL', 'suite run', 'someone', 'FINISHED', t, t + 30000, "
        f"'active', 'mlflow-artifacts:/{experiment}/' || id || '/artifacts', {experiment} from r"
    )
    for table, count, name in (("params", PARAMS, "train.option"), ("tags", TAGS, "tag")):
        database.sql(
            f"insert into {table} (key, value, run_uuid) select '{name}_' || k, 'value ' || (i * 7 + k) % 50, id "
            f"from r, generate_series(1, {count}) k"
        )
    for key, value in (
        ("group", "'one'"),
        ("data.fingerprint", "'same'"),
        ("run", "'run-' || i"),
        ("mixer", f"'mixer-' || i / {SEEDS}"),
        ("configuration", f"'mixer-' || i / {SEEDS}"),
        ("mlflow.runName", f"'mixer-' || i / {SEEDS} || ' · board · seed ' || i % {SEEDS}"),
    ):
        database.sql(f"insert into tags (key, value, run_uuid) select '{key}', {value}, id from r")
    _fill_metrics(database, points)
    _write_board(store, experiment, runs)
    database.sql("vacuum analyze")
    return experiment


def _fill_metrics(database: Postgres, points: int) -> None:
    """As a bulk load does it: without indexes, which are built afterwards as MLflow's migrations build them."""
    for index in _INDEXES:
        database.sql(f"drop index {index}")
    database.sql("alter table metrics drop constraint metric_pk")
    names = "case k when 1 then 'test/top1' when 2 then 'train/loss' when 3 then 'valid/top1' else 'train/m' || k end"
    database.sql(
        "insert into metrics (key, value, timestamp, step, is_nan, run_uuid) "
        f"select {names}, 1.0 / (1 + s) + (i * 37 % 1000) / 1e4, t + s * 100, s, false, id "
        f"from r, generate_series(1, {METRICS}) k, generate_series(1, {points}) s"
    )
    database.sql(
        "alter table metrics add constraint metric_pk primary key (key, timestamp, step, run_uuid, value, is_nan)"
    )
    database.sql("create index index_metrics_run_uuid on metrics (run_uuid)")
    database.sql("create index index_metrics_run_uuid_key_step on metrics (run_uuid, key, step)")
    database.sql(
        "insert into latest_metrics (key, value, timestamp, step, is_nan, run_uuid) "
        f"select key, value, timestamp, step, is_nan, run_uuid from metrics where step = {points}"
    )


def _write_board(store: Store, experiment: str, runs: int) -> None:
    """One row per mixer of eight seeds, at most 50, by the code that a publication uses."""
    rows = tuple(
        RankedRow(
            f"mixer-{row}",
            f"#{row + 1} mixer-{row}",
            "0.5",
            {"rank": row + 1.0, "place": row + 1.0, "value": 0.5, "half_width": 0.01, "flops": 1e6},
            {"mixer": f"mixer-{row}", "ranks": "1–3"},
            tuple(SeedRun(f"run-{row * SEEDS + seed}", seed, "0.5") for seed in range(SEEDS)),
        )
        for row in range(min(50, runs // SEEDS))
    )
    board = RankedBoard("board", "board", "one", "same", ("metrics.rank", "metrics.value"), rows)
    store.write_board(experiment, "the leader", BoardView("test/top1", False, ["tags.mixer"]), [board])


def report(database: Postgres, seconds: float) -> None:
    [runs, points, size] = database.sql(
        "select count(*)::text from runs union all select count(*)::text from metrics "
        "union all select pg_size_pretty(pg_database_size(current_database()))"
    )
    sys.stdout.write(f"{runs} runs, {points} points, {size}, filled in {seconds:.0f} s\n")


def views(client: Any, experiment: str) -> list[View]:
    """The experiment's saved views as searches."""
    found = []
    for name, text in client.get_experiment(experiment).tags.items():
        if name.startswith(VIEW_TAG):
            state = json.loads(json.loads(text)["state"])
            order = f"{state['orderByKey']} {'ASC' if state['orderByAsc'] else 'DESC'}"
            found.append(View(json.loads(text)["name"], state["searchFilter"], order))
    return sorted(found, key=lambda view: view.name)


def read(database: Postgres, server: TrackingServer, experiment: str, repeat: int) -> float:
    """Prints the time of each view through the server and directly; the largest median through either."""
    from mlflow import MlflowClient

    os.environ.update(server.environment())
    medians = []
    sys.stdout.write("| view | runs | through | median s | longest s |\n|---|---|---|---|---|\n")
    clients = {"the server": MlflowClient(server.url), "PostgreSQL directly": MlflowClient(database.uri())}
    for view in [View("all runs", "", "attributes.start_time DESC"), *views(clients["the server"], experiment)]:
        for through, client in clients.items():
            listed, times = timed(client, experiment, view, repeat)
            medians.append(statistics.median(times))
            sys.stdout.write(f"| {view.name} | {listed} | {through} | {medians[-1]:.2f} | {max(times):.2f} |\n")
    return max(medians)


def timed(client: Any, experiment: str, view: View, repeat: int) -> tuple[int, list[float]]:
    """The number of listed runs, and the seconds of each repetition; the first one reads from the disk."""
    found, times = list[Any](), list[float]()
    for _ in range(repeat):
        began = time.monotonic()
        found = client.search_runs([experiment], view.query, max_results=PAGE, order_by=[view.order])
        times.append(time.monotonic() - began)
    return len(found), times


if __name__ == "__main__":
    main()

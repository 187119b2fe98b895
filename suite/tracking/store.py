"""MLflow: the store of runs. The only file that imports mlflow, inside functions, by its explicit client.

A run uses `suite.tracking.client.Tracker`; `Store` is what its worker delivers to. The functions at the end are for the
commands.
"""

from __future__ import annotations

import importlib
import os
import socket
import sqlite3
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import psutil
from filelock import FileLock

from suite.tracking.journal import now_ms
from suite.tracking.ui_state import BOARD_VIEW, VIEW_TAG, BoardView, board_tags, ui_url

# Seconds, not minutes, for a server that does not answer; a user's own values win.
_ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_ENABLE_ASYNC_LOGGING": "false",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",  # a command's output is its own
    "GIT_PYTHON_REFRESH": "quiet",
}
_LOCK_S = 120.0
_START_SLACK_S = 2.0  # between two readings of when a process started
_REFUSALS = ("INVALID_PARAMETER_VALUE", "BAD_REQUEST", "RESOURCE_DOES_NOT_EXIST", "INVALID_STATE")
_METRICS, _PARAMS, _TAGS = 1000, 100, 100  # MLflow's limits of one request


class RefusedError(Exception):
    """The store was reached and will never take this: asking again is of no use."""


def tracking_uri(home: Path) -> str:
    """Where runs go: `MLFLOW_TRACKING_URI` if it is set, else the embedded store under `home`."""
    return os.environ.get("MLFLOW_TRACKING_URI", "").strip() or f"sqlite:///{home.resolve() / 'mlflow.db'}"


def is_server(uri: str) -> bool:
    return urlsplit(uri).scheme in ("http", "https")


def public_uri(uri: str) -> str:
    """The address as a record may show it: without credentials, and without the folders of an embedded store."""
    if uri.startswith("sqlite"):
        return f"sqlite:///{Path(uri).name}"
    parts = urlsplit(uri)
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit((parts.scheme, host, parts.path, "", "")).rstrip("/")


class Store:
    """A connection to the store at `uri`, which is made where it is missing.

    Methods raise `RefusedError` for what the store will never take, and whatever MLflow, the database or the system
    raise where the store can't be reached.
    """

    def __init__(self, home: Path, uri: str) -> None:
        for name, value in _ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        self._home, self._uri = home, uri
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore"
            )  # MLflow's first import and use warn of its own dependencies, which is not for our users
            from mlflow.tracking.client import MlflowClient

            if uri.startswith("sqlite"):
                importlib.import_module(
                    "mlflow.store.tracking.sqlalchemy_store"
                )  # here, for imports must not wait for each other
            with _turns(home, uri):
                self._client: Any = MlflowClient(tracking_uri=uri)
                if uri.startswith("sqlite"):
                    self._client.search_experiments(
                        max_results=1
                    )  # the database is opened, and migrated, by its first use
                    _write_ahead(uri)

    def experiment(self, name: str) -> str:
        """The id of the experiment, made (or taken out of the bin) where needed. Several processes may ask at once."""
        with _turns(self._home, self._uri):
            found = self._client.get_experiment_by_name(name)
            if found is None:
                return self._create_experiment(name)
            if found.lifecycle_stage == "deleted":
                self._client.restore_experiment(found.experiment_id)
            return str(found.experiment_id)

    def _create_experiment(self, name: str) -> str:
        from mlflow.exceptions import MlflowException

        place = None if is_server(self._uri) else (self._home.resolve() / "artifacts" / name).as_uri()
        try:
            return str(self._client.create_experiment(name, artifact_location=place))
        except MlflowException:
            found = self._client.get_experiment_by_name(name)  # on a server, another process may have been faster
            if found is None:
                raise
            return str(found.experiment_id)

    def boards(self) -> list[tuple[str, str]]:
        """Names and ids of the experiments that have a board, the one that changed last first."""
        found = self._client.search_experiments(order_by=["last_update_time DESC"])
        return [(each.name, str(each.experiment_id)) for each in found if VIEW_TAG + BOARD_VIEW in each.tags]

    def create_run(self, experiment_id: str, name: str, time_ms: int, tags: Mapping[str, str]) -> str:
        run = self._client.create_run(experiment_id, start_time=time_ms, tags=dict(tags), run_name=name)
        return str(run.info.run_id)

    def reopen_run(self, run_id: str) -> bool:
        """Takes a run out of the bin if it lies there; False when the store has no such run."""
        from mlflow.exceptions import MlflowException

        try:
            run = self._client.get_run(run_id)
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            return False
        if run.info.lifecycle_stage == "deleted":
            self._client.restore_run(run_id)
        return True

    def find_run(self, experiment_id: str, tag: str, value: str) -> str | None:
        found = self._client.search_runs([experiment_id], f"tags.`{tag}` = '{value}'", max_results=1)
        return str(found[0].info.run_id) if found else None

    def running(self, tag: str, value: str) -> Iterator[tuple[str, str, dict[str, str]]]:
        """The runs that say RUNNING and carry the tag: id, name, tags."""
        experiments = [found.experiment_id for found in self._client.search_experiments()]
        wanted, token = f"attributes.status = 'RUNNING' and tags.`{tag}` = '{value}'", None
        while experiments:
            page = self._client.search_runs(experiments, wanted, max_results=1000, page_token=token)
            yield from [(run.info.run_id, run.info.run_name, run.data.tags) for run in page]
            token = page.token
            if not token:
                return

    def last_steps(self, run_id: str) -> dict[str, int]:
        """By metric, the last step the store has."""
        names = self._client.get_run(run_id).data.metrics
        return {name: max(point.step for point in self._client.get_metric_history(run_id, name)) for name in names}

    def log_metrics(self, run_id: str, points: Sequence[tuple[str, float, int, int]]) -> None:
        """Logs (name, value, time in ms, step). A point that the store has already, time included, is not doubled."""
        from mlflow.entities import Metric

        for begin in range(0, len(points), _METRICS):
            self._batch(run_id, metrics=[Metric(*point) for point in points[begin : begin + _METRICS]])

    def log_params(self, run_id: str, params: Mapping[str, str]) -> None:
        """Logs parameters; those the run has already stay, as they can't be changed."""
        from mlflow.entities import Param

        present = self._client.get_run(run_id).data.params
        new = [Param(name, value) for name, value in params.items() if name not in present]
        for begin in range(0, len(new), _PARAMS):
            self._batch(run_id, params=new[begin : begin + _PARAMS])

    def log_tags(self, run_id: str, tags: Mapping[str, str]) -> None:
        from mlflow.entities import RunTag

        new = [RunTag(name, value) for name, value in tags.items()]
        for begin in range(0, len(new), _TAGS):
            self._batch(run_id, tags=new[begin : begin + _TAGS])

    def log_text(self, run_id: str, name: str, text: str) -> None:
        with self._artifact(run_id):
            self._client.log_text(run_id, text, name)

    def log_file(self, run_id: str, path: Path, folder: str) -> None:
        with self._artifact(run_id):
            self._client.log_artifact(run_id, str(path), folder or None)

    @contextmanager
    def _artifact(self, run_id: str) -> Iterator[None]:
        """Artifacts live elsewhere than runs (a folder, a bucket): when that fails and the store itself answers, it is
        a refusal.
        """
        try:
            yield
        except Exception as error:  # whatever the many kinds of artifact stores raise
            self._client.get_run(run_id)
            raise RefusedError(str(error)) from error

    def set_status(self, run_id: str, status: str, end_ms: int | None = None) -> None:
        with _refusals():
            if status == "RUNNING":
                self._client.update_run(run_id, status=status)
            else:
                self._client.set_terminated(run_id, status=status, end_time=end_ms)

    def write_board(self, experiment_id: str, note_markdown: str, view: BoardView) -> None:
        """Writes the experiment tags of a board, only those that changed."""
        present: Mapping[str, str] = self._client.get_experiment(experiment_id).tags
        for name, value in board_tags(note_markdown, view, now_ms()).items():
            if present.get(name) != value:
                with _refusals():
                    self._client.set_experiment_tag(experiment_id, name, value)

    def _batch(self, run_id: str, **entities: object) -> None:
        with _refusals():
            self._client.log_batch(run_id, **entities)


@contextmanager
def _turns(home: Path, uri: str) -> Iterator[None]:
    """Processes that open an embedded store at once take turns: its migrations run without a lock."""
    if not uri.startswith("sqlite"):
        yield
        return
    home.mkdir(parents=True, exist_ok=True)
    with FileLock(str(home / ".mlflow.lock"), timeout=_LOCK_S):
        yield


def _write_ahead(uri: str) -> None:
    """Write-ahead logging: readers (the UI) and one writer no longer stop each other. The mode stays with the file."""
    connection = sqlite3.connect(uri.removeprefix("sqlite:///"), timeout=_LOCK_S)
    try:
        if connection.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
            connection.execute("PRAGMA journal_mode=WAL")
    finally:
        connection.close()


@contextmanager
def _refusals() -> Iterator[None]:
    from mlflow.exceptions import MlflowException

    try:
        yield
    except MlflowException as error:
        if error.error_code in _REFUSALS:
            raise RefusedError(str(error)) from error
        raise


def update_board(
    home: Path, experiment: str, *, note_markdown: str, primary_metric: str, ascending: bool, columns: Sequence[str]
) -> str:
    """Writes the task's board into MLflow (note, kind, saved view) and returns the experiment's id. See `BoardView` for
    `columns`.
    """
    store = Store(home, tracking_uri(home))
    experiment_id = store.experiment(experiment)
    store.write_board(experiment_id, note_markdown, BoardView(primary_metric, ascending, columns))
    return experiment_id


def board_urls(home: Path, base: str) -> dict[str, str]:
    """By task, the address of its board on the server `base`; the board that changed last comes first."""
    return {
        name: ui_url(base, experiment_id, BOARD_VIEW)
        for name, experiment_id in Store(home, tracking_uri(home)).boards()
    }


def close_dead_runs(home: Path) -> list[str]:
    """Ends as KILLED the runs that say RUNNING though their process on this machine is gone. Returns their names and
    ids.
    """
    store, closed = Store(home, tracking_uri(home)), []
    for run_id, name, tags in list(store.running("suite.host", socket.gethostname())):
        if not _process_lives(tags):
            store.set_status(run_id, "KILLED")
            store.log_tags(run_id, {"suite.closed": "its process was gone"})
            closed.append(f"{name} ({run_id})")
    return closed


def _process_lives(tags: Mapping[str, str]) -> bool:
    """True where the process that wrote the tags is alive: the same id and the same start, for ids are used again."""
    try:
        process = psutil.Process(int(tags["suite.pid"]))
        same = abs(process.create_time() - float(tags["suite.pid_start"])) < _START_SLACK_S
        return same and process.status() != psutil.STATUS_ZOMBIE
    except (KeyError, ValueError, psutil.NoSuchProcess):
        return False
    except psutil.AccessDenied:
        return True

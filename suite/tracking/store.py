"""MLflow, the store of runs. This is the only file that imports mlflow, inside functions, and only its client.

A run uses `suite.tracking.client.Tracker`; its worker delivers to `Store`, and so do commands.
"""

from __future__ import annotations

import importlib
import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from suite.tracking.database_access import connect_once, enable_write_ahead_log, exclusive
from suite.tracking.journal import now_ms
from suite.tracking.ranked_board import RUN_TAG, RankedBoard, StoredRun, write_rows
from suite.tracking.store_address import is_embedded, is_server
from suite.tracking.ui.state import BOARD_VIEW, KIND, VIEW_TAG, BoardView, board_tags, is_own_view

# A server that does not respond costs seconds, not minutes. Variables set by the user take precedence.
_ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_ENABLE_ASYNC_LOGGING": "false",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",  # only the command itself writes to stdout
    "GIT_PYTHON_REFRESH": "quiet",
    "PGCONNECT_TIMEOUT": "10",
}
_REFUSALS = ("INVALID_PARAMETER_VALUE", "BAD_REQUEST", "RESOURCE_DOES_NOT_EXIST", "INVALID_STATE")
_METRICS, _PARAMS, _TAGS = 1000, 100, 100  # MLflow's limits of one request
_ALL = 3  # MLflow's number for active and deleted runs
#: The tag by which a run's journal finds its run in a store that it has no state of.
ID_TAG = "suite.tracking_id"


class RefusedError(Exception):
    """The store was reached and refused the data for good: a repetition cannot succeed."""


class Store:
    """A connection to the store at `uri`, which is created if it does not exist.

    Methods raise `RefusedError` for data that the store refuses; if the store cannot be reached, the errors of MLflow,
    the database or the system.
    """

    def __init__(self, home: Path, uri: str) -> None:
        for name, value in _ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        self._home, self._uri = home, uri
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the first import and use of MLflow warn about its own dependencies
            from mlflow.tracking.client import MlflowClient

            if is_embedded(uri):  # before the lock is taken, so that no process waits for another's import
                importlib.import_module("mlflow.store.tracking.sqlalchemy_store")
            if not is_embedded(uri) and not is_server(uri):
                connect_once(uri)
            with exclusive(home, uri):
                self._client: Any = MlflowClient(tracking_uri=uri)
                if is_embedded(uri):
                    self._delete_empty_default()  # the first use opens and migrates the database
                    enable_write_ahead_log(uri)

    def _delete_empty_default(self) -> None:
        """MLflow begins its database with an experiment that nothing here uses. A shared server keeps it."""
        found = self._client.get_experiment_by_name("Default")
        if found is None or found.lifecycle_stage == "deleted" or found.experiment_id != "0":
            return
        if not self._client.search_runs(["0"], run_view_type=_ALL, max_results=1):
            self._client.delete_experiment("0")

    def experiment(self, name: str, tags: Mapping[str, str] | None = None) -> str:
        """The id of the experiment `domain/task`, created (or restored after deletion) if needed, with these tags. One
        that an earlier version named `task` is renamed. Safe with several processes.
        """
        with exclusive(self._home, self._uri):
            found = self._client.get_experiment_by_name(name) or self._rename_earlier(name)
            if found is None:
                experiment_id, present = self._create_experiment(name), dict[str, str]()
            else:
                experiment_id, present = str(found.experiment_id), found.tags
                if found.lifecycle_stage == "deleted":
                    self._client.restore_experiment(experiment_id)
        self._set_experiment_tags(experiment_id, {**KIND, **(tags or {})}, present)
        return experiment_id

    def _rename_earlier(self, name: str) -> Any:
        """The experiment that an earlier version of the suite created for the task, under its new name; None where
        there is none. Another program's experiment of that name is left alone.
        """
        domain, _, task = name.partition("/")
        found = self._client.get_experiment_by_name(task) if domain and task else None
        if found is None:
            return None
        if not self._client.search_runs([found.experiment_id], f"tags.`{ID_TAG}` != ''", _ALL, max_results=1):
            return None
        if found.lifecycle_stage == "deleted":
            self._client.restore_experiment(found.experiment_id)
        self._client.rename_experiment(found.experiment_id, name)
        return self._client.get_experiment(found.experiment_id)

    def _set_experiment_tags(self, experiment_id: str, tags: Mapping[str, str], present: Mapping[str, str]) -> None:
        for name, value in tags.items():
            if present.get(name) != value:
                with _refusals():
                    self._client.set_experiment_tag(experiment_id, name, value)

    def _create_experiment(self, name: str) -> str:
        from mlflow.exceptions import MlflowException

        location = None if is_server(self._uri) else (self._home.resolve() / "artifacts" / name).as_uri()
        try:
            return str(self._client.create_experiment(name, artifact_location=location))
        except MlflowException:
            found = self._client.get_experiment_by_name(name)  # on a server, another process may have created it first
            if found is None:
                raise
            return str(found.experiment_id)

    def boards(self) -> list[tuple[str, str]]:
        """Tasks and ids of the experiments that have a board, the most recently changed one first."""
        found = self._client.search_experiments(order_by=["last_update_time DESC"])
        shown = [each for each in found if VIEW_TAG + BOARD_VIEW in each.tags]
        return [(each.tags.get("task", each.name), str(each.experiment_id)) for each in shown]

    def delete_experiment(self, experiment_id: str) -> None:
        self._client.delete_experiment(experiment_id)

    def server_version(self) -> str:
        """The version of MLflow on a server."""
        from mlflow.tracking._tracking_service.utils import get_default_host_creds
        from mlflow.utils.rest_utils import http_request

        answer = http_request(get_default_host_creds(self._uri), "/version", "GET")
        answer.raise_for_status()
        return str(answer.text).strip()

    def first_runs(self, metric: str, limit: int) -> list[str]:
        """The ids of the first runs of all experiments, sorted by a metric, as the UI lists those of one."""
        experiments = [found.experiment_id for found in self._client.search_experiments()]
        found = self._client.search_runs(experiments, "", max_results=limit, order_by=[f"metrics.`{metric}` ASC"])
        return [run.info.run_id for run in found]

    def create_run(self, experiment_id: str, name: str, time_ms: int, tags: Mapping[str, str]) -> str:
        run = self._client.create_run(experiment_id, start_time=time_ms, tags=dict(tags), run_name=name)
        return str(run.info.run_id)

    def reopen_run(self, run_id: str) -> bool:
        """Restores the run if it was deleted; False if the store has no such run."""
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
        """The id of the experiment's run with this tag, or of one in the experiment of an earlier version."""
        name = self._client.get_experiment(experiment_id).name
        earlier = self._client.get_experiment_by_name(name.partition("/")[2]) if "/" in name else None
        experiments = [experiment_id, *([earlier.experiment_id] if earlier else [])]
        found = self._client.search_runs(experiments, f"tags.`{tag}` = '{value}'", max_results=1)
        return str(found[0].info.run_id) if found else None

    def delete_copy(self, experiment_id: str, run: str, beginning: str) -> None:
        """Deletes the runs with this tag `run` whose tracking id begins like this: a complete one replaces them."""
        if "'" not in run and run:
            query = f"tags.`{RUN_TAG}` = '{run}' and tags.`{ID_TAG}` LIKE '{beginning}%'"
            for found in self.find_runs(experiment_id, query):
                self.delete_run(found.id)

    def find_runs(self, experiment_id: str, query: str) -> list[StoredRun]:
        """The runs of an experiment that a query in MLflow's language finds."""
        found, token = list[StoredRun](), None
        while True:
            page = self._client.search_runs([experiment_id], query, max_results=1000, page_token=token)
            found += [
                StoredRun(run.info.run_id, run.info.run_name, run.info.status, run.data.tags, run.data.metrics)
                for run in page
            ]
            token = page.token
            if not token:
                return found

    def delete_run(self, run_id: str) -> None:
        self._client.delete_run(run_id)

    def rename_run(self, run_id: str, name: str) -> None:
        with _refusals():
            self._client.update_run(run_id, name=name)

    def running(self, tag: str, value: str) -> Iterator[tuple[str, str, dict[str, str]]]:
        """The runs with status RUNNING and this tag: id, name, tags."""
        experiments = [found.experiment_id for found in self._client.search_experiments()]
        query, token = f"attributes.status = 'RUNNING' and tags.`{tag}` = '{value}'", None
        while experiments:
            page = self._client.search_runs(experiments, query, max_results=1000, page_token=token)
            yield from [(run.info.run_id, run.info.run_name, run.data.tags) for run in page]
            token = page.token
            if not token:
                return

    def last_steps(self, run_id: str) -> dict[str, int]:
        """The last step of each metric in the store."""
        names = self._client.get_run(run_id).data.metrics
        return {name: max(point.step for point in self._client.get_metric_history(run_id, name)) for name in names}

    def log_metrics(self, run_id: str, points: Sequence[tuple[str, float, int, int]]) -> None:
        """Logs (name, value, time in ms, step). A point that the store already has, with the same time, is ignored."""
        from mlflow.entities import Metric

        for begin in range(0, len(points), _METRICS):
            self._batch(run_id, metrics=[Metric(*point) for point in points[begin : begin + _METRICS]])

    def log_params(self, run_id: str, params: Mapping[str, str]) -> None:
        """Logs parameters, except those that the run already has, which cannot be changed."""
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

    def delete_tags(self, run_id: str, names: Iterable[str]) -> None:
        for name in names:
            with _refusals():
                self._client.delete_tag(run_id, name)

    def log_dataset(self, run_id: str, dataset: Mapping[str, str]) -> None:
        """Logs the data of a run: `name`, `digest`, `source` and `profile`. A repetition is ignored."""
        from mlflow.entities import Dataset, DatasetInput, InputTag

        profile = dataset.get("profile") or None
        entity = Dataset(dataset["name"][:500], dataset["digest"][:36], "external", dataset["source"], None, profile)
        with _refusals():
            context = [InputTag("mlflow.data.context", "training")]
            self._client.log_inputs(run_id, [DatasetInput(entity, context)])

    def log_text(self, run_id: str, name: str, text: str) -> None:
        with self._artifact(run_id):
            self._client.log_text(run_id, text, name)

    def log_file(self, run_id: str, path: Path, folder: str) -> None:
        with self._artifact(run_id):
            self._client.log_artifact(run_id, str(path), folder or None)

    @contextmanager
    def _artifact(self, run_id: str) -> Iterator[None]:
        """Artifacts are stored separately from runs (in a folder, a bucket). If storing one fails although the run can
        be read, that is a refusal.
        """
        try:
            yield
        except Exception as error:  # each kind of artifact store raises its own types
            self._client.get_run(run_id)
            raise RefusedError(str(error)) from error

    def set_status(self, run_id: str, status: str, end_ms: int | None = None) -> None:
        with _refusals():
            if status == "RUNNING":
                self._client.update_run(run_id, status=status)
            else:
                self._client.set_terminated(run_id, status=status, end_time=end_ms)

    def write_board(
        self,
        experiment_id: str,
        note_markdown: str,
        view: BoardView,
        boards: Sequence[RankedBoard] = (),
        known: Callable[[str], str | None] = lambda _: None,
    ) -> None:
        """Makes the note, the saved views and the rows of an experiment those of its boards. For `known` see
        `write_rows`.
        """
        with exclusive(self._home, self._uri), _refusals():
            write_rows(self, experiment_id, boards, now_ms(), known)
        present: Mapping[str, str] = self._client.get_experiment(experiment_id).tags
        tags = board_tags(note_markdown, view, boards)
        self._set_experiment_tags(experiment_id, tags, present)
        for name in present:
            if is_own_view(name) and name not in tags:
                with _refusals():
                    self._client.delete_experiment_tag(experiment_id, name)

    def _batch(self, run_id: str, **entities: object) -> None:
        with _refusals():
            self._client.log_batch(run_id, **entities)


def schema_versions() -> list[str]:
    """The versions of the database schema that this MLflow knows; the last one is what it needs."""
    from alembic.script import ScriptDirectory
    from mlflow.store.db.utils import _get_alembic_config

    scripts = ScriptDirectory.from_config(_get_alembic_config(""))
    return [script.revision for script in scripts.walk_revisions()][::-1]


@contextmanager
def _refusals() -> Iterator[None]:
    from mlflow.exceptions import MlflowException

    try:
        yield
    except MlflowException as error:
        if error.error_code in _REFUSALS:
            raise RefusedError(str(error)) from error
        raise

"""Delivers a run's journal to a store: finds or makes the run there, replays the events, remembers how far it got."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from filelock import FileLock, Timeout

from suite.errors import UserError
from suite.tracking import RefusedError, Store, TrackedRun, public_uri, tracking_uri
from suite.tracking_journal import JOURNAL, LOCK, Event, load_state, read_events, save_state
from suite.tracking_trouble import explain
from suite.tracking_views import BoardView

_GROUP = 1000  # metrics that are delivered, and noted as delivered, together
_ID_TAG = "suite.tracking_id"


class Delivery:
    """The way from one journal to one store. Every step may be repeated: the store knows a point it has already.

    `pump` raises whatever keeps the store from taking the next event; what was taken before stays taken. An event the store
    refuses for good is left out and counted in `refused`.
    """

    def __init__(self, home: Path, run_dir: Path, uri: str, boards: bool = True) -> None:
        self._home, self._run_dir, self._uri, self._boards = home, run_dir, uri, boards
        self._key = public_uri(uri) if "@" in uri else uri  # the state file holds no passwords
        self._state = load_state(run_dir, self._key)
        self._store: Store | None = None
        self._attached = False
        self.refused = 0

    @property
    def run_id(self) -> str:
        return self._state.run_id

    def pump(self) -> None:
        """Delivers every complete event that is not yet in the store."""
        store = self._store = self._store or Store(self._home, self._uri)
        if not self._attached and self._state.run_id:
            self._attached = store.reopen_run(self._state.run_id)
            if not self._attached:  # removed from the store: the journal has all of it
                self._state.run_id, self._state.offset = "", 0
        for group, offset in _groups(read_events(self._run_dir / JOURNAL, self._state.offset)):
            try:
                self._apply(store, group)
            except RefusedError:
                self.refused += len(group)
            self._state.offset = offset
            save_state(self._run_dir, self._key, self._state)

    def beat(self, time_ms: int) -> None:
        """Tells the store that the run is alive."""
        if self._store is not None and self._attached:
            self._store.log_tags(self._state.run_id, {"suite.heartbeat": str(time_ms // 1000)})

    def _apply(self, store: Store, group: list[Event]) -> None:
        event, run_id = group[0], self._state.run_id
        match event["kind"]:
            case "start":
                self._start(store, event)
            case "resume":
                store.set_status(run_id, "RUNNING")
                store.log_tags(run_id, event["tags"])
            case "metrics" | "summary":
                store.log_metrics(run_id, self._points(group))
            case "tags":
                store.log_tags(run_id, event["tags"])
            case "text":
                store.log_text(run_id, event["name"], event["text"])
            case "file":
                store.log_file(run_id, self._run_dir / event["path"], event["folder"])
            case "board" if self._boards:
                view = BoardView(event["primary_metric"], event["ascending"], event["columns"])
                store.write_board(self._state.experiment_id, event["note_markdown"], view)
            case "finish":
                store.set_status(run_id, event["status"], event["time"])

    def _start(self, store: Store, event: Event) -> None:
        """Takes up the run to be resumed, or one whose making was not answered, or makes a new one."""
        experiment_id = self._state.experiment_id = store.experiment(event["experiment"])
        run_id = event["run_id"]
        if run_id and store.reopen_run(run_id):
            store.set_status(run_id, "RUNNING")
            self._state.known_steps = store.last_steps(run_id)
        else:
            run_id = store.find_run(experiment_id, _ID_TAG, event["tracking_id"])
        if run_id is None:
            tags = {"mlflow.source.name": "suite run", "mlflow.source.type": "LOCAL", _ID_TAG: event["tracking_id"]}
            run_id = store.create_run(experiment_id, event["run_name"], event["time"], tags)
        self._state.run_id, self._attached = run_id, True
        store.log_params(run_id, event["params"])
        store.log_tags(run_id, event["tags"])

    def _points(self, group: list[Event]) -> list[tuple[str, float, int, int]]:
        return [
            (name, value, event["time"], event["step"])
            for event in group
            for name, value in event["values"].items()
            if event["step"] > self._state.known_steps.get(name, -1)
        ]


def _groups(events: Iterable[tuple[Event, int]]) -> Iterable[tuple[list[Event], int]]:
    """Metrics that follow each other go out together, about a request's worth; every other event goes alone."""
    group: list[Event] = []
    size, end = 0, 0
    for event, offset in events:
        is_metrics = event["kind"] in ("metrics", "summary")
        size += len(event["values"]) if is_metrics else 0
        if group and (not is_metrics or size > _GROUP):
            yield group, end
            group, size = [], len(event["values"]) if is_metrics else 0
        if is_metrics:
            group.append(event)
        else:
            yield [event], offset
        end = offset
    if group:
        yield group, end


def upload(run_dir: Path, home: Path) -> TrackedRun:
    """Delivers what a run kept in its journal to the store of today (`MLFLOW_TRACKING_URI`, or the embedded one under `home`).

    May be repeated: nothing arrives twice. A store that does not know the run gets all of it. Raises `UserError`.
    """
    if not (run_dir / JOURNAL).is_file():
        raise UserError(f"{run_dir} has no {JOURNAL}: nothing to upload; pass the folder of a run")
    uri = tracking_uri(home)
    try:
        with FileLock(str(run_dir / LOCK), timeout=0):
            delivery = Delivery(home, run_dir, uri, boards=False)
            delivery.pump()
    except Timeout:
        raise UserError(f"{run_dir.name} is still being tracked by its own process; wait until it ends") from None
    except Exception as error:  # whatever MLflow, its server, its database or the disk come up with
        raise UserError(f"upload of {run_dir.name}: {explain(error, public_uri(uri))}") from error
    if not delivery.run_id:
        raise UserError(f"{run_dir / JOURNAL} does not hold the start of a run; it is damaged")
    return TrackedRun(delivery.run_id, public_uri(uri))

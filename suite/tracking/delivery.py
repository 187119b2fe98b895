"""Delivers a run's journal to a store: finds or makes the run there, replays the events, remembers how far it got."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from suite.errors import UserError
from suite.tracking.client import TrackedRun
from suite.tracking.error_messages import explain
from suite.tracking.journal import JOURNAL, LOCK, Delivered, Event, load_state, read_events, save_state
from suite.tracking.store import RefusedError, Store, public_uri, tracking_uri
from suite.tracking.ui_state import BoardView

_GROUP = 1000  # metrics that are delivered, and noted as delivered, together
Group = list[tuple[Event, int]]  # events with the offsets at which they begin
_ID_TAG = "suite.tracking_id"


class Delivery:
    """The way from one journal to one store. Every step may be repeated: the store knows a point it has already.

    `pump` raises whatever keeps the store from taking the next event; what was taken before stays taken. An event the
    store refuses is left out and noted, so that the rest goes on; `pump(again=True)` offers it once more. `refusal` is
    the last reason.
    """

    def __init__(self, home: Path, run_dir: Path, uri: str, boards: bool = True) -> None:
        self._home, self._run_dir, self._uri, self._boards = home, run_dir, uri, boards
        self._key = public_uri(uri) if "@" in uri else uri  # the state file holds no passwords
        self._state = load_state(run_dir, self._key)
        self._store: Store | None = None
        self._attached = False
        self.refusal = ""

    @property
    def run_id(self) -> str:
        return self._state.run_id

    @property
    def refused(self) -> int:
        """How many events the store would not take."""
        return len(self._state.refused)

    def pump(self, again: bool = False) -> None:
        """Delivers every complete event that is not yet in the store."""
        store = self._store = self._store or Store(self._home, self._uri)
        if not self._attached and self._state.run_id:
            self._attached = store.reopen_run(self._state.run_id)
            if not self._attached:  # removed from the store: the journal has all of it
                self._state = Delivered()
        if again:
            self._offer_again(store)
        for group, end in _groups(read_events(self._run_dir / JOURNAL, self._state.offset), self._state.offset):
            self._state.refused += self._offer(store, group)
            self._state.offset = end
            self._save()

    def _offer(self, store: Store, group: Group) -> list[int]:
        """Delivers a group; returns the offsets of what was refused."""
        try:
            self._apply(store, [event for event, _ in group])
        except RefusedError as error:
            if len(group) > 1:
                return [start for single in group for start in self._offer(store, [single])]
            self.refusal = str(error).splitlines()[0][:160]
            return [group[0][1]]
        return []

    def _offer_again(self, store: Store) -> None:
        for start in list(self._state.refused):
            event, _ = next(read_events(self._run_dir / JOURNAL, start))
            if not self._offer(store, [(event, start)]):
                self._state.refused.remove(start)
                self._save()

    def _save(self) -> None:
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
            # with all tags at once: a run that is killed right here must tell whose it was
            own = {"mlflow.source.name": "suite run", "mlflow.source.type": "LOCAL", _ID_TAG: event["tracking_id"]}
            tags = {**event["tags"], **own}
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


def _groups(events: Iterable[tuple[Event, int]], start: int) -> Iterator[tuple[Group, int]]:
    """Metrics that follow each other go out together, about a request's worth; every other event goes alone.

    Gives each group with the offset behind it; `start` is the offset before the first event.
    """
    group: Group = []
    size = 0
    for event, end in events:
        values = len(event["values"]) if event["kind"] in ("metrics", "summary") else _GROUP
        if group and size + values > _GROUP:
            yield group, start
            group, size = [], 0
        group.append((event, start))
        size, start = size + values, end
    if group:
        yield group, start


def upload(run_dir: Path, home: Path) -> TrackedRun:
    """Delivers what a run kept in its journal to the store of today (`MLFLOW_TRACKING_URI`, or the embedded one under
    `home`).

    May be repeated: nothing arrives twice. A store that does not know the run gets all of it. Raises `UserError`.
    """
    if not (run_dir / JOURNAL).is_file():
        raise UserError(f"{run_dir} has no {JOURNAL}: nothing to upload; pass the folder of a run")
    uri = tracking_uri(home)
    try:
        with FileLock(str(run_dir / LOCK), timeout=0):
            delivery = Delivery(home, run_dir, uri, boards=False)
            delivery.pump(again=True)
    except Timeout:
        raise UserError(f"{run_dir.name} is still being tracked by its own process; wait until it ends") from None
    except Exception as error:  # whatever MLflow, its server, its database or the disk come up with
        raise UserError(f"upload of {run_dir.name}: {explain(error, public_uri(uri))}") from error
    if not delivery.run_id:
        raise UserError(f"{run_dir / JOURNAL} does not hold the start of a run; it is damaged")
    if delivery.refused:
        raise UserError(
            f"upload of {run_dir.name}: all arrived but {delivery.refused} entries, which {public_uri(uri)} "
            f"refused ({delivery.refusal})"
        )
    return TrackedRun(delivery.run_id, public_uri(uri))

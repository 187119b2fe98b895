"""Delivers a run's journal to a store: finds or creates the run there, replays the events, saves its progress."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

from filelock import FileLock, Timeout

from suite.errors import UserError
from suite.tracking import backlog
from suite.tracking.client import TrackedRun
from suite.tracking.error_messages import explain
from suite.tracking.journal import JOURNAL, LOCK, Delivered, Event, load_state, read_events, save_state
from suite.tracking.ranked_board import RUN_TAG, from_plain
from suite.tracking.store import ID_TAG, RefusedError, Store
from suite.tracking.store_address import public_uri, state_key, tracking_uri
from suite.tracking.ui.state import BoardView

_SMALLEST = 10  # values per request to a server that answers slowly
_GROUP = 1000  # the number of metric values that are delivered, and saved as delivered, together
Group = list[tuple[Event, int]]  # events with the offsets at which they begin
#: Points of a metric that the store gets; the journal and the record have all.
POINTS = 200
#: Tags and metrics of earlier versions that are now parameters, tags of the experiment, or a file.
_NO_TAGS, _NO_PREFIXES = ("task", "domain", "data.protocol"), ("version.", "hardware.")
_ATTENTION = "attention/"
#: How the tracking id of a run begins that was made from its record, while its journal was elsewhere.
FROM_RECORD = "record:"


class Delivery:
    """Delivers one journal to one store. Every step may be repeated: the store ignores points that it already has.

    `deliver` raises the error that prevents the delivery of the next event; earlier events stay delivered. An event
    that the store refuses is skipped and noted; `deliver(again=True)` sends it once more. `refusal` is the last reason.
    """

    def __init__(self, home: Path, run_dir: Path, uri: str, boards: bool = True, store: Store | None = None) -> None:
        self._home, self._run_dir, self._uri, self._boards = home, run_dir, uri, boards
        self._key = state_key(uri)
        self._state = load_state(run_dir, self._key)
        self._store = store
        self._attached = False
        self._begun, self._size = "", _GROUP
        self._steps_apart: int | None = None
        self.refusal = ""

    @property
    def run_id(self) -> str:
        return self._state.run_id

    @property
    def refused(self) -> int:
        """The number of events that the store refused."""
        return len(self._state.refused)

    def deliver(self, again: bool = False, progress: Callable[[int], None] | None = None) -> None:
        """Delivers every complete event that is not yet in the store; `progress` is called with the offset reached."""
        store = self._store = self._store or Store(self._home, self._uri)
        if not self._attached and self._state.run_id:
            self._attached = store.reopen_run(self._state.run_id)
            if not self._attached:  # removed from the store: deliver the whole journal
                self._state = Delivered()
        journal = self._run_dir / JOURNAL
        if self._state.offset > journal.stat().st_size:  # it was cut: the store ignores what it already has
            self._state.offset, self._state.refused, self._state.sent_steps = 0, [], {}
        if not self._state.run_id and not self._begin(store, journal):
            return
        if again:
            self._send_refused(store)
        while group := next(_groups(read_events(journal, self._state.offset), self._state.offset, self._size), None):
            try:
                self._state.refused += self._send(store, group[0])
            except Exception:
                self._size = max(self._size // 4, _SMALLEST)  # for a slow server, whose answer would come too late
                raise
            self._size = min(self._size * 2, _GROUP)
            self._state.offset = group[1]
            self._save()
            if progress:
                progress(self._state.offset)

    def _begin(self, store: Store, journal: Path) -> bool:
        """Creates the run before anything else is sent, even where its line is not the first that can be read."""
        start = next((event for event, _ in read_events(journal) if event["kind"] == "start"), None)
        if start is not None:
            self._start(store, start)
            self._begun = start["tracking_id"]
        return start is not None

    def _send(self, store: Store, group: Group) -> list[int]:
        """Delivers a group; returns the offsets of the refused events."""
        try:
            self._apply(store, [event for event, _ in group])
        except RefusedError as error:
            if len(group) > 1:
                return [start for single in group for start in self._send(store, [single])]
            self.refusal = str(error).splitlines()[0][:160]
            return [group[0][1]]
        return []

    def _send_refused(self, store: Store) -> None:
        for start in list(self._state.refused):
            event, _ = next(read_events(self._run_dir / JOURNAL, start))
            if not self._send(store, [(event, start)]):
                self._state.refused.remove(start)
                self._save()

    def _save(self) -> None:
        save_state(self._run_dir, self._key, self._state)

    def heartbeat(self, time_ms: int) -> None:
        """Records in the store that the run is alive."""
        if self._store is not None and self._attached:
            self._store.log_tags(self._state.run_id, {"suite.heartbeat": str(time_ms // 1000)})

    def _apply(self, store: Store, group: list[Event]) -> None:
        event, run_id = group[0], self._state.run_id
        match event["kind"]:
            case "start" if event["tracking_id"] != self._begun:
                self._start(store, event)
            case "resume":
                store.set_status(run_id, "RUNNING")
                store.log_tags(run_id, kept(event["tags"]))
            case "metrics" | "summary":
                self._send_values(store, group)
            case "tags":
                store.log_tags(run_id, kept(event["tags"]))
            case "text":
                store.log_text(run_id, event["name"], event["text"])
            case "file":
                store.log_file(run_id, self._run_dir / event["path"], event["folder"])
            case "board" if self._boards and "boards" in event:  # earlier versions knew no rows
                self._write_board(store, event)
            case "finish":
                store.set_status(run_id, event["status"], event["time"])

    def _start(self, store: Store, event: Event) -> None:
        """Reopens the run to be resumed, or one whose creation the store did not confirm, or creates a new one."""
        of_experiment = _experiment_tags(event)
        experiment_id = self._state.experiment_id = store.experiment(_experiment(event), of_experiment)
        run_id, tags = event["run_id"], kept(event["tags"])
        if run_id and store.reopen_run(run_id):
            store.set_status(run_id, "RUNNING")
            self._state.known_steps = store.last_steps(run_id)
        elif self._attached:  # a later start of the same journal, whose first one was unreadable to the resumed run
            run_id = self._state.run_id
            store.set_status(run_id, "RUNNING")
        else:
            run_id = store.find_run(experiment_id, ID_TAG, event["tracking_id"])
        if run_id is None:
            store.delete_copy(experiment_id, tags.get(RUN_TAG, ""), FROM_RECORD)
            # with all tags at once: a run killed at this point must be recognisable
            own = {"mlflow.source.name": "suite run", "mlflow.source.type": "LOCAL", ID_TAG: event["tracking_id"]}
            run_id = store.create_run(experiment_id, event["run_name"], event["time"], {**tags, **own})
        self._state.run_id, self._attached = run_id, True
        store.log_params(run_id, event["params"])
        store.log_tags(run_id, tags)
        if dataset := _dataset(event):
            store.log_dataset(run_id, dataset)

    def _send_values(self, store: Store, group: list[Event]) -> None:
        points = list[tuple[str, float, int, int]]()
        attention, sent = dict[str, float](), dict(self._state.sent_steps)
        for event in group:
            for name, value in event["values"].items():
                if name.startswith(_ATTENTION):
                    attention[name] = value
                elif self._is_sent(event, name, sent):
                    points.append((name, value, event["time"], event["step"]))
        store.log_metrics(self._state.run_id, points)
        if attention:  # the journal of an earlier version, which had them as metrics
            store.log_text(self._state.run_id, "attention.json", json.dumps(attention, indent=1))
        self._state.sent_steps = sent

    def _is_sent(self, event: Event, name: str, sent: dict[str, int]) -> bool:
        """Whether a value becomes a point of its metric: the last one, and others far enough from the one before."""
        step = event["step"]
        if step <= self._state.known_steps.get(name, -1):
            return False
        if event["kind"] == "metrics":
            apart, total = self._spacing()
            if name in sent and step - sent[name] < apart and step != total:
                return False
            sent[name] = step
        return True

    def _spacing(self) -> tuple[int, int]:
        """How many steps the points of a metric are apart, and the run's number of steps."""
        if self._steps_apart is None:
            events = (event for event, _ in read_events(self._run_dir / JOURNAL) if event["kind"] == "start")
            steps = next(events, {}).get("params", {}).get("train.steps", "")
            self._total = int(steps) if steps.isdigit() else 0
            self._steps_apart = math.ceil(self._total / (POINTS - 2)) if self._total else 1
        return self._steps_apart, self._total

    def _write_board(self, store: Store, event: Event) -> None:
        try:
            boards = [from_plain(each) for each in event["boards"]]
        except (TypeError, KeyError, ValueError, AttributeError) as error:
            raise RefusedError(f"the board of the journal is damaged: {error}") from error
        view = BoardView(event["primary_metric"], event["ascending"], event["columns"])
        store.write_board(self._state.experiment_id, event["note_markdown"], view, boards, self.stored_id)

    def stored_id(self, run: str) -> str | None:
        """The store's id of another run in the runs folder, where that run was delivered to the same store."""
        return load_state(self._home / run, self._key).run_id or None


def _experiment(event: Event) -> str:
    """`domain/task`. Journals of earlier versions have the task alone."""
    tags = _experiment_tags(event)
    earlier = event["experiment"] == tags.get("task") and tags.get("domain")
    return f"{tags['domain']}/{tags['task']}" if earlier else str(event["experiment"])


def _experiment_tags(event: Event) -> dict[str, str]:
    names = {"domain": "domain", "task": "task", "data.protocol": "protocol"}
    earlier = {names[name]: text for name, text in event["tags"].items() if name in names}
    return event.get("experiment_tags") or earlier


def _dataset(event: Event) -> dict[str, str] | None:
    tags = event["tags"]
    if event.get("dataset"):
        return dict(event["dataset"])
    if tags.get("task") and tags.get("data.fingerprint"):
        return {"name": tags["task"], "digest": tags["data.fingerprint"], "source": tags.get("data.protocol", "")}
    return None


def kept(tags: Mapping[str, str]) -> dict[str, str]:
    """Tags of a run without those of earlier versions that are now parameters or tags of the experiment."""
    return {name: text for name, text in tags.items() if name not in _NO_TAGS and not name.startswith(_NO_PREFIXES)}


def _groups(events: Iterable[tuple[Event, int]], start: int, limit: int) -> Iterator[tuple[Group, int]]:
    """Consecutive metrics are sent together, up to `limit` values; every other event is sent alone.

    Yields each group with the offset of its end; `start` is the offset of the first event.
    """
    group: Group = []
    size = 0
    for event, end in events:
        values = len(event["values"]) if event["kind"] in ("metrics", "summary") else _GROUP
        if group and size + values > limit:
            yield group, start
            group, size = [], 0
        group.append((event, start))
        size, start = size + values, end
    if group:
        yield group, start


def upload(run_dir: Path, home: Path) -> TrackedRun:
    """Delivers a run's journal to the current store (`MLFLOW_TRACKING_URI`, or the embedded one under `home`).

    May be repeated: nothing is stored twice. A store without the run gets all of it. Raises `UserError`.
    """
    if not (run_dir / JOURNAL).is_file():
        raise UserError(f"{run_dir} has no {JOURNAL}: nothing to upload; give the id or folder of a run")
    uri = tracking_uri(home)
    try:
        with FileLock(str(run_dir / LOCK), timeout=0):
            delivery = Delivery(home, run_dir, uri, boards=False)
            delivery.deliver(again=True)
            if delivery.run_id and not delivery.refused and run_dir in backlog.pending(run_dir.parent):
                backlog.remove(run_dir)
    except Timeout:
        raise UserError(f"{run_dir.name} is still being tracked by its own process; wait until it ends") from None
    except Exception as error:  # MLflow, its server, its database and the disk raise many types
        raise UserError(f"upload of {run_dir.name}: {explain(error, public_uri(uri))}") from error
    if not delivery.run_id:
        raise UserError(
            f"{run_dir / JOURNAL} is damaged: it does not contain the start of a run, so it cannot be uploaded"
        )
    if delivery.refused:
        raise UserError(
            f"upload of {run_dir.name}: {public_uri(uri)} refused {delivery.refused} entries and stored all others "
            f"({delivery.refusal}); repeat the upload, or set MLFLOW_TRACKING_URI to another store"
        )
    return TrackedRun(delivery.run_id, public_uri(uri))

"""The tracker of a run: the part of tracking in the training process.

The training process only appends lines to the run's journal (about ten microseconds each). A separate worker process
imports MLflow, connects and delivers the journal, so that neither the import, nor the creation of a store, nor a slow
server delays a step. A thread would not suffice: while it imports MLflow, the training thread hardly gets the
interpreter lock.

The environment variable `SUITE_TRACKING=off` disables the worker: the run writes its journal, and `suite upload RUN`
sends it later. With `SUITE_TRACKING=later`, as runs of a sweep have it, another process sends it: the sweep's one
worker or, where that is gone, the next command.
"""

from __future__ import annotations

import contextlib
import math
import os
import re
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from types import TracebackType
from typing import Concatenate, Literal, ParamSpec, TypeVar

from suite.errors import first_line, reason
from suite.safe_text import redacted
from suite.tracking import backlog
from suite.tracking.journal import JOURNAL, STATE, Event, JournalWriter, now_ms, read_events
from suite.tracking.process_identity import process_tags
from suite.tracking.ranked_board import RankedBoard
from suite.tracking.store_address import tracking_uri
from suite.tracking.worker_handle import NoWorker, WorkerProcess

Status = Literal["FINISHED", "FAILED", "KILLED"]

_FINISH_S = 120.0  # how long a run waits at its end for a store without a problem so far
_PROBLEM_S = 5.0  # and for one with a problem
_METRIC_NAME = re.compile(r"[^\w\-. :/]", re.ASCII)
_PARAM_LIMIT, _TAG_LIMIT = 6000, 8000


@dataclass(frozen=True)
class TrackedRun:
    """The tracking fields of a record: MLflow's id of the run, and the store without credentials or folders."""

    run_id: str
    uri: str


P = ParamSpec("P")
R = TypeVar("R")


def _never_raises(method: Callable[Concatenate[Tracker, P], R]) -> Callable[Concatenate[Tracker, P], R | None]:
    """A method of the tracker whose errors become its warning: tracking is a copy, the run is worth more."""

    @wraps(method)
    def guarded(tracker: Tracker, /, *arguments: P.args, **options: P.kwargs) -> R | None:
        try:
            return method(tracker, *arguments, **options)
        except (OSError, ValueError, TypeError, LookupError, AttributeError, RuntimeError) as error:
            tracker._report(f"{type(error).__name__}: {first_line(error)}")
            return None

    return guarded


class Tracker:
    """Tracks one run. The constructor returns at once; no method raises or blocks because of the store.

    `home` holds the embedded store, `run_dir` the journal. `resume_run_id` or `resume=True` continues the journal of
    `run_dir` (and the run in the store); otherwise an old journal there is renamed. `warn` is called once, with one
    line, if tracking has a problem; the run continues. `params` are flat: dotted names of the resolved config.
    `dataset` has a `name`, a `digest`, a `source` and a `profile`, its sizes as JSON.

    As a context manager it ends the run as FINISHED, FAILED (an exception) or KILLED (KeyboardInterrupt, or SystemExit
    with SIGTERM's code 143) unless `finish` was called before.
    """

    def __init__(
        self,
        *,
        home: Path,
        run_dir: Path,
        experiment: str,
        run_name: str,
        params: Mapping[str, object],
        tags: Mapping[str, str],
        warn: Callable[[str], None],
        resume_run_id: str | None = None,
        resume: bool = False,
        experiment_tags: Mapping[str, str] | None = None,
        dataset: Mapping[str, str] | None = None,
    ) -> None:
        self._run_dir, self._warn = run_dir, warn
        self._warned = self._finished = False
        # logged by an earlier part of this run: the last step of each metric, and the summary's metrics
        self._last_step: dict[str, int] = {}
        self._summarised: set[str] = set()
        self._top_step = 0
        resume = resume or resume_run_id is not None
        continued = resume and bool(self._read_back())
        if not resume:
            _rename_old_journal(run_dir / JOURNAL)
        self._journal = JournalWriter(run_dir)
        opening: Event = {
            "kind": "resume" if continued else "start",
            "time": now_ms(),
            "tags": _clean({**tags, **process_tags()}),
        }
        if not continued:
            opening |= {
                "experiment": experiment,
                "run_name": run_name,
                "params": _clean(params, _PARAM_LIMIT),
                "tracking_id": uuid.uuid4().hex,
                "run_id": resume_run_id or "",
                "experiment_tags": _clean(experiment_tags or {}),
                "dataset": {name: redacted(text) for name, text in (dataset or {}).items()},
            }
        self._journal.append(opening)
        mode = os.environ.get("SUITE_TRACKING")
        self._sent_later, self._uri = mode == "later", tracking_uri(home)
        if mode != "off":
            backlog.add(run_dir, self._uri)
        self._worker = NoWorker() if mode in ("off", "later") else WorkerProcess(home, run_dir)

    @property
    def delivers(self) -> bool:
        """Whether this tracker's own worker delivers the journal while the run is in progress."""
        return isinstance(self._worker, WorkerProcess)

    @property
    def run(self) -> TrackedRun | None:
        """The run in the store; None until the worker has created it (`wait` waits for that)."""
        status = self._worker.status
        return TrackedRun(status.run_id, status.uri) if status.run_id else None

    @_never_raises
    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Logs metrics of a step. The steps of a metric must increase. Values that are not finite become tags."""
        cleaned = {_clean_name(name): value for name, value in metrics.items()}
        new = {name: value for name, value in cleaned.items() if step > self._last_step.get(name, -1)}
        self._log(step, new, "metrics")
        self._report_problem()

    @_never_raises
    def summary(self, metrics: Mapping[str, float]) -> None:
        """Logs results of the whole run (test metrics, throughput) at its last step, so that tables show them."""
        cleaned = {_clean_name(name): value for name, value in metrics.items()}
        self._log(
            self._top_step, {name: value for name, value in cleaned.items() if name not in self._summarised}, "summary"
        )
        self._report_problem()

    @_never_raises
    def set_tags(self, tags: Mapping[str, str]) -> None:
        self._journal.append({"kind": "tags", "time": now_ms(), "tags": _clean(tags)})

    @_never_raises
    def artifact_text(self, name: str, text: str) -> None:
        """Stores a text as the artifact `name` (`folder/file.md`)."""
        self._journal.append({"kind": "text", "time": now_ms(), "name": name, "text": redacted(text)})

    @_never_raises
    def artifact_file(self, path: Path, folder: str = "") -> None:
        """Stores a file as an artifact. It is read on delivery; a file in the run's folder may move with the folder."""
        resolved, root = path.resolve(), self._run_dir.resolve()
        portable = resolved.relative_to(root) if resolved.is_relative_to(root) else resolved
        self._journal.append({"kind": "file", "time": now_ms(), "path": str(portable), "folder": folder})

    @_never_raises
    def board(
        self,
        note_markdown: str,
        *,
        primary_metric: str,
        ascending: bool,
        columns: Sequence[str],
        boards: Sequence[RankedBoard] = (),
    ) -> None:
        """Writes the task's boards to MLflow: note, views, and one run per row. The worker does it."""
        view = {"primary_metric": primary_metric, "ascending": ascending, "columns": list(columns)}
        event = {"kind": "board", "time": now_ms(), "note_markdown": redacted(note_markdown), **view}
        self._journal.append({**event, "boards": [each.plain() for each in boards]})

    @_never_raises
    def flush(self) -> None:
        """Writes everything logged so far to the disk and requests its delivery, without waiting for the delivery.

        Called before a checkpoint is saved, so that a run resumed there neither loses a point nor logs one twice.
        """
        self._journal.sync()
        self._worker.request_delivery()
        self._report_problem()

    @_never_raises
    def wait(self, timeout_s: float = _FINISH_S) -> TrackedRun | None:
        """Waits until the store has everything logged so far; returns the run, or None if the store is unreachable."""
        self._journal.sync()
        has_problem = bool(self._worker.status.problem)
        self._worker.wait_delivered(min(timeout_s, _PROBLEM_S) if has_problem else timeout_s)
        self._report_problem()
        return self.run

    @_never_raises
    def finish(self, status: Status) -> None:
        """Ends the run, delivers what is left and stops the worker. A second call does nothing."""
        if self._finished:
            return
        self._finished = True
        self._journal.append({"kind": "finish", "time": now_ms(), "status": status})
        self.wait()
        delivered = self._worker.close() and self._journal.error is None
        self._journal.close()
        self._report_problem(undelivered=not delivered)
        if lost := self._journal.unwritten:
            self._warn(
                f"tracking: {lost} entries could not be written ({reason(self._journal.error or OSError())}) and are "
                f"lost; {self._run_dir / JOURNAL} holds the ones before"
            )
        if self._sent_later:
            backlog.add(self._run_dir, self._uri)  # again: whoever sends it may have taken it for ended
        elif delivered:
            backlog.remove(self._run_dir)
        else:
            backlog.make_due(self._run_dir)
        if delivered and self._warned:
            self._warn("tracking: everything has now been delivered")

    def __enter__(self) -> Tracker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        killed = isinstance(error, KeyboardInterrupt) or (isinstance(error, SystemExit) and error.code == 143)
        if killed:
            self.finish("KILLED")
        else:
            failed = error is not None and not (isinstance(error, SystemExit) and error.code in (None, 0))
            self.finish("FAILED" if failed else "FINISHED")

    def _log(self, step: int, metrics: Mapping[str, float], kind: str) -> None:
        values = {name: float(value) for name, value in metrics.items() if math.isfinite(value)}
        if len(values) < len(metrics):
            self.set_tags(
                {
                    f"suite.not_finite.{name}": f"{metrics[name]} at step {step}"
                    for name in metrics
                    if name not in values
                }
            )
        if values:
            self._journal.append({"kind": kind, "time": now_ms(), "step": int(step), "values": values})
        self._top_step = max(step, self._top_step)

    def _report_problem(self, undelivered: bool = False) -> None:
        if self._journal.error:
            self._report(
                f"{JOURNAL} cannot be written ({reason(self._journal.error)}); the run continues, its metrics are kept "
                "in memory and written when that is possible again; what is not written when it ends is lost"
            )
        elif problem := self._worker.status.problem or ("not everything was delivered in time" if undelivered else ""):
            self._report(
                f"{problem}; the run continues and keeps its metrics in {self._run_dir / JOURNAL}; the next command "
                f"sends them, or: suite upload {self._run_dir.name}"
            )

    def _report(self, problem: str) -> None:
        """Warns of the first problem only."""
        if not self._warned:
            self._warned = True
            self._warn(f"tracking: {problem}")

    @_never_raises
    def _read_back(self) -> bool:
        """Reads which metrics an earlier part of this run logged, up to which step. False if there was none."""
        path, found = self._run_dir / JOURNAL, False
        if not path.exists():
            return False
        for event, _ in read_events(path):
            found = found or event["kind"] == "start"
            if event["kind"] == "summary":
                self._summarised |= event["values"].keys()
            if event["kind"] == "finish":
                self._summarised.clear()  # that summary was of an earlier end, not of the whole run
            if event["kind"] == "metrics":
                self._last_step |= {name: max(event["step"], self._last_step.get(name, -1)) for name in event["values"]}
                self._top_step = max(event["step"], self._top_step)
        return found


def _clean_name(name: str) -> str:
    """MLflow allows letters, digits and _ - . space : / in names."""
    return _METRIC_NAME.sub("_", name)[:250]


def _clean(values: Mapping[str, object], limit: int = _TAG_LIMIT) -> dict[str, str]:
    """Parameters or tags as they may be stored: without secrets, and as long as MLflow allows."""
    return {_clean_name(name): _cut(redacted(str(value)), limit) for name, value in values.items()}


def _cut(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"


def _rename_old_journal(journal: Path) -> None:
    """Renames the journal of an earlier run in the same folder, and removes its state, which no longer applies."""
    if not journal.exists():
        return
    number = 1
    while (renamed := journal.with_name(f"tracking.{number}.jsonl")).exists():
        number += 1
    with contextlib.suppress(OSError):  # a folder that is not writable: the journal itself reports it
        journal.replace(renamed)
        journal.with_name(STATE).unlink(missing_ok=True)

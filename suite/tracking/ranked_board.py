"""A task's boards as the store shows them: one run per row with its rank and costs, whose note links the runs of its
seeds.

A row of a board is found again by the board's key and its own, so that a later publication updates it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

from suite.safe_text import markdown_text

BOARD_TAG, ROW_TAG, RUN_TAG = "board", "row", "run"
#: The run whose artifacts are the page and the plots of all boards of a task.
PAGE_TAG = "board.page"
#: Metrics of a row: its rank, which rows that no test separates share, and its place in the order of the results.
RANK, PLACE = "rank", "place"
SOURCE = {"mlflow.source.name": "suite publish", "mlflow.source.type": "LOCAL"}
NOTE_TAG = "mlflow.note.content"
_MODE = "workflowType=machine_learning"
_NOTE_LIMIT = 7000  # characters; MLflow refuses tags of over 8,000


@dataclass(frozen=True)
class SeedRun:
    """A run of a row: its id in the runs folder, its seed, and its result as text."""

    id: str
    seed: int
    result: str


@dataclass(frozen=True)
class RankedRow:
    """A row of a board.

    key: the same for the row in every publication of the board.
    name: `#1 fem`, or `#1–3 fem` where no test separates it from two others.
    result: its result in one line of Markdown.
    """

    key: str
    name: str
    result: str
    metrics: Mapping[str, float]
    tags: Mapping[str, str]
    runs: tuple[SeedRun, ...] = ()


@dataclass(frozen=True)
class RankedBoard:
    """A board.

    key: of the runs that may be compared.
    title: what distinguishes it from the task's other boards.
    group, data: the tags `group` and `data.fingerprint` of its runs.
    columns: of its table of rows, as for `BoardView`.
    """

    key: str
    title: str
    group: str
    data: str
    columns: tuple[str, ...]
    rows: tuple[RankedRow, ...] = ()

    def plain(self) -> dict[str, Any]:
        """The board as plain JSON values."""
        return asdict(self)


def from_plain(value: Any) -> RankedBoard:
    """The board that `plain` gave. Raises TypeError, KeyError or ValueError for other values."""
    rows = tuple(RankedRow(**{**row, "runs": tuple(SeedRun(**each) for each in row["runs"])}) for row in value["rows"])
    numbers = [number for row in rows for number in row.metrics.values()]
    texts = [text for row in rows for text in (row.key, row.name, row.result, *row.tags.values())]
    if not all(isinstance(each, float | int) for each in numbers) or not all(isinstance(each, str) for each in texts):
        raise TypeError("a row of a board has a value of another type")
    return RankedBoard(**{**value, "columns": tuple(value["columns"]), "rows": rows})


@dataclass(frozen=True)
class StoredRun:
    """A run in the store."""

    id: str
    name: str
    status: str
    tags: Mapping[str, str] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)


class Runs(Protocol):
    """What is needed of the store."""

    def find_runs(self, experiment_id: str, query: str) -> list[StoredRun]: ...
    def create_run(self, experiment_id: str, name: str, time_ms: int, tags: Mapping[str, str]) -> str: ...
    def delete_run(self, run_id: str) -> None: ...
    def rename_run(self, run_id: str, name: str) -> None: ...
    def set_status(self, run_id: str, status: str, end_ms: int | None = None) -> None: ...
    def log_tags(self, run_id: str, tags: Mapping[str, str]) -> None: ...
    def log_metrics(self, run_id: str, points: Sequence[tuple[str, float, int, int]]) -> None: ...


def write_rows(
    store: Runs,
    experiment_id: str,
    boards: Iterable[RankedBoard],
    now_ms: int,
    known: Callable[[str], str | None] = lambda _: None,
) -> None:
    """Makes the rows of an experiment those of its boards: new ones are created, changed ones updated, others deleted.

    `known` gives the store's id of a run by its id in the runs folder, where that is known without a search.
    """
    present: dict[tuple[str, str], StoredRun] = {}
    for found in store.find_runs(experiment_id, f"tags.`{ROW_TAG}` != ''"):
        key = found.tags.get(BOARD_TAG, ""), found.tags[ROW_TAG]
        if key in present:  # two processes have published at the same time
            store.delete_run(found.id)
        else:
            present[key] = found
    links = _Links(store, experiment_id, known)
    for board in boards:
        for row in board.rows:
            note = _note(row, experiment_id, links)
            _write_row(store, experiment_id, board, row, note, present.pop((board.key, row.key), None), now_ms)
    for left in present.values():
        store.delete_run(left.id)


def _write_row(
    store: Runs,
    experiment_id: str,
    board: RankedBoard,
    row: RankedRow,
    note: str,
    present: StoredRun | None,
    now_ms: int,
) -> None:
    tags = {BOARD_TAG: board.key, ROW_TAG: row.key, **row.tags, NOTE_TAG: note}
    if present is not None and not present.metrics.keys() <= row.metrics.keys():
        store.delete_run(present.id)  # a metric cannot be removed from a run
        present = None
    if present is None:
        run_id = store.create_run(experiment_id, row.name, now_ms, {**SOURCE, **tags})
        present = StoredRun(run_id, row.name, "RUNNING", tags)
    if present.name != row.name:
        store.rename_run(present.id, row.name)
    if changed := {name: text for name, text in tags.items() if present.tags.get(name) != text}:
        store.log_tags(present.id, changed)
    # all at step 0, which the UI's charts show as bars
    if new := [(name, v, now_ms, 0) for name, v in row.metrics.items() if present.metrics.get(name) != v]:
        store.log_metrics(present.id, new)
    if present.status != "FINISHED":
        store.set_status(present.id, "FINISHED", now_ms)


class _Links:
    """The addresses of an experiment's runs."""

    def __init__(self, store: Runs, experiment_id: str, known: Callable[[str], str | None]) -> None:
        self._store, self._experiment_id, self._known = store, experiment_id, known
        self._found: dict[str, str] | None = None
        self._page: str | None = None

    def of(self, run: str) -> str | None:
        """The store's id of a run."""
        if known := self._known(run):
            return known
        if self._found is None:
            found = self._store.find_runs(self._experiment_id, f"tags.`{RUN_TAG}` != ''")
            self._found = {each.tags[RUN_TAG]: each.id for each in found}
        return self._found.get(run)

    def page(self) -> str:
        """The store's id of the run that has the page; empty where there is none."""
        if self._page is None:
            found = self._store.find_runs(self._experiment_id, f"tags.`{PAGE_TAG}` != ''")
            self._page = found[0].id if found else ""
        return self._page


def _note(row: RankedRow, experiment_id: str, links: _Links) -> str:
    """The row's note: its result, then its runs."""
    address = f"#/experiments/{experiment_id}/runs"
    lines = [row.result, "", "| seed | result | run |", "| --- | --- | --- |"]
    for run in row.runs:
        name, found = markdown_text(run.id), links.of(run.id)
        linked = f"[{name}]({address}/{found}?{_MODE})" if found else name
        lines.append(f"| {run.seed} | {markdown_text(run.result)} | {linked} |")
    while sum(map(len, lines)) > _NOTE_LIMIT:
        lines[-1:] = []
    if page := links.page():
        title = "The pages of the task's boards (in boards/), tables and plots"
        lines += ["", f"[{title}]({address}/{page}/artifacts?{_MODE})"]
    return "\n".join(lines)

"""What commands do with the current store: rebuild it, find the addresses of boards, close runs of dead processes."""

from __future__ import annotations

import json
import socket
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from suite.tracking import backlog
from suite.tracking.delivery import Delivery, kept
from suite.tracking.journal import JOURNAL, LOCK, Event, now_ms
from suite.tracking.process_identity import HOST_TAG, is_alive
from suite.tracking.ranked_board import PAGE_TAG, RUN_TAG, SOURCE, RankedBoard, StoredRun
from suite.tracking.store import Store
from suite.tracking.store_address import public_uri, tracking_uri
from suite.tracking.ui.state import BOARD_VIEW, BoardView, ui_url

_PAGE_NAME = "page and plots of the boards"


@dataclass(frozen=True)
class TaskBoards:
    """The boards of one task, and the files of their page by name."""

    note_markdown: str
    view: BoardView
    boards: Sequence[RankedBoard]
    files: Mapping[str, str]


class Publisher:
    """A connection to the current store. The methods raise what the store raises."""

    def __init__(self, home: Path) -> None:
        self._home, self._uri = home, tracking_uri(home)
        self._store = Store(home, self._uri)
        self._runs: dict[str, dict[str, StoredRun]] = {}

    @property
    def address(self) -> str:
        return public_uri(self._uri)

    def journal(self, run_dir: Path) -> str | None:
        """Delivers a run's journal; its id in the store, None if the journal does not contain the start of a run.
        Raises Timeout while the run's own process tracks it.
        """
        with FileLock(str(run_dir / LOCK), timeout=0):
            delivery = Delivery(self._home, run_dir, self._uri, boards=False, store=self._store)
            delivery.deliver(again=True)
            if delivery.run_id and not delivery.refused and run_dir in backlog.pending(self._home):
                backlog.remove(run_dir)
            return delivery.run_id or None

    def run_of(self, experiment: str, tags: Mapping[str, str], run: str) -> StoredRun | None:
        """The stored run of a record; None if the store lacks it."""
        if experiment not in self._runs:
            found = self._store.find_runs(self._store.experiment(experiment, tags), f"tags.`{RUN_TAG}` != ''")
            self._runs[experiment] = {each.tags[RUN_TAG]: each for each in found}
        return self._runs[experiment].get(run)

    def from_events(self, events: Sequence[Event]) -> None:
        """Adds a run that has no journal."""
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            (folder / JOURNAL).write_text("".join(json.dumps(event) + "\n" for event in events), "utf-8")
            Delivery(self._home, folder, self._uri, boards=False, store=self._store).deliver()

    def complete(
        self,
        stored: StoredRun,
        name: str,
        params: Mapping[str, str],
        tags: Mapping[str, str],
        dataset: Mapping[str, str],
    ) -> bool:
        """Adds what an earlier version did not track of a run, and removes its tags that are now parameters; whether
        anything was missing.
        """
        missing = {tag: text for tag, text in tags.items() if stored.tags.get(tag) != text}
        if not missing and stored.name == name:
            return False
        self._store.log_params(stored.id, params)
        self._store.log_tags(stored.id, missing)
        self._store.delete_tags(stored.id, stored.tags.keys() - kept(stored.tags).keys())
        self._store.log_dataset(stored.id, dataset)
        self._store.rename_run(stored.id, name)
        return True

    def boards(self, experiment: str, tags: Mapping[str, str], made: TaskBoards) -> str:
        """Writes the page, the rows and the views of a task's boards; the experiment's id."""
        experiment_id = self._store.experiment(experiment, tags)
        if made.files:
            self._write_page(experiment_id, made.files)
        self._store.write_board(experiment_id, made.note_markdown, made.view, made.boards)
        return experiment_id

    def _write_page(self, experiment_id: str, files: Mapping[str, str]) -> None:
        from suite.config.identity import digest

        content = digest(dict(files))[:16]
        found = self._store.find_runs(experiment_id, f"tags.`{PAGE_TAG}` != ''")
        if found and found[0].tags[PAGE_TAG] == content:
            return
        run_id = (
            found[0].id
            if found
            else self._store.create_run(experiment_id, _PAGE_NAME, now_ms(), {**SOURCE, PAGE_TAG: "being written"})
        )
        for name, text in files.items():
            self._store.log_text(run_id, name, text)
        self._store.log_tags(run_id, {PAGE_TAG: content})
        self._store.set_status(run_id, "FINISHED", now_ms())


def board_urls(home: Path, base: str) -> dict[str, str]:
    """The address of each task's board on the server `base`; the most recently changed board comes first."""
    return {
        name: ui_url(base, experiment_id, BOARD_VIEW)
        for name, experiment_id in Store(home, tracking_uri(home)).boards()
    }


def close_dead_runs(home: Path) -> list[str]:
    """Ends as KILLED the runs of this machine with status RUNNING whose process has died. Returns their names and
    ids.
    """
    store, closed = Store(home, tracking_uri(home)), []
    for run_id, name, tags in list(store.running(HOST_TAG, socket.gethostname())):
        if not is_alive(tags):
            store.set_status(run_id, "KILLED")
            store.log_tags(run_id, {"suite.closed": "its process had died"})
            closed.append(f"{name} ({run_id})")
    return closed

"""`suite publish`: the tracking store from records and journals. Nothing is lost with the store."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from filelock import Timeout

from suite.boards.board import Board, boards, primary_metric
from suite.boards.tracked import publish
from suite.boards.tracked.opening import Opening, opening
from suite.records import runs_folder
from suite.records.collection import Collection, read_all, read_published
from suite.records.record import NAME
from suite.records.schema import Record
from suite.tracking.delivery import FROM_RECORD
from suite.tracking.journal import JOURNAL, Event
from suite.tracking.publishing import Publisher, TaskBoards
from suite.tracking.ui.state import BoardView


@dataclass
class Rebuilt:
    """What the store has now.

    store: its address.
    rows: the number of rows by task.
    added: runs that it lacked.
    completed: runs that an earlier version had tracked with less.
    in_progress: runs that are left to their own processes.
    refused: record files that cannot be relied on, with the reason.
    """

    store: str
    runs: int = 0
    rows: dict[str, int] = field(default_factory=dict)
    added: list[str] = field(default_factory=list)
    completed: list[str] = field(default_factory=list)
    in_progress: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)


def rebuild(
    task: str | None = None, folder: Path | None = None, report: Callable[[str], None] = lambda _: None
) -> Rebuilt:
    """Writes every run and every board to the current store. It may be repeated: nothing is stored twice.

    Args:
        task: only runs and boards of this task.
        folder: of records that are published instead of the runs here.
        report: called with a line for each step.

    Returns:
        What the store has now.

    Raises what the store raises.
    """
    found = read_published(folder)[0] if folder else read_all()
    records = [made for made in found.records if task in (None, made.task)]
    publisher = Publisher(runs_folder.writable_home())
    done = Rebuilt(publisher.address, len(records), refused=[each.reason for each in found.refused])
    if folder is None:
        _journals(publisher, task, {made.id for made in records}, done, report)
    for made in records:
        _record(publisher, made, done)
    report(f"{len(records)} runs are in {publisher.address}")
    for name in sorted({made.task for made in records}):
        _boards(publisher, name, found, done)
        report(f"{name}: {done.rows[name]} rows")
    return done


def publish_boards(tasks: Iterable[str]) -> None:
    """Writes the boards of some tasks to the current store, their pages included. Their runs are left alone.

    Args:
        tasks: names of tasks; those without a record are ignored.

    Raises what the store raises.
    """
    found = read_all()
    recorded = {made.task for made in found.records}
    publisher = Publisher(runs_folder.writable_home())
    for task in tasks:
        if task in recorded:
            _boards(publisher, task, found, Rebuilt(publisher.address))


def _journals(
    publisher: Publisher, task: str | None, recorded: set[str], done: Rebuilt, report: Callable[[str], None]
) -> None:
    """Delivers the journals of the runs here; with `task`, of those that have a record of it."""
    folders = [path.parent for path in sorted(runs_folder.home().glob(f"*/{JOURNAL}"))]
    for number, folder in enumerate(folders, 1):
        if task is not None and folder.name not in recorded:
            continue
        try:
            publisher.journal(folder)
        except Timeout:
            done.in_progress.append(folder.name)
        if number % 50 == 0:
            report(f"{number} of {len(folders)} journals")


def _record(publisher: Publisher, made: Record, done: Rebuilt) -> None:
    begun = opening(made)
    stored = publisher.run_of(begun.experiment, begun.experiment_tags, made.id)
    if stored is None:
        publisher.from_events(events_of(made, begun))
        done.added.append(made.id)
    elif publisher.complete(stored, begun.run_name, _texts(begun.params), begun.tags, begun.dataset):
        done.completed.append(made.id)


def _boards(publisher: Publisher, task: str, found: Collection, done: Rebuilt) -> None:
    made = boards(found.records, found.refused, task=task)
    newest = next(each for each in reversed(found.records) if each.task == task)
    begun, shown = opening(newest), [board for board in made if board.rows]
    of_task = TaskBoards(
        note_markdown=publish.note(made),
        view=BoardView(**publish.view(primary_metric(newest))),
        boards=[publish.ranked(board) for board in shown],
        files=page_files(shown) if shown else {},
    )
    publisher.boards(begun.experiment, begun.experiment_tags, of_task)
    done.rows[task] = sum(len(board.rows) for board in shown)


def page_files(shown: Sequence[Board]) -> dict[str, str]:
    """The pages of some boards, their tables, and each plot as a file, by name."""
    from suite.boards.page.page import file_name
    from suite.boards.page.plots import plots
    from suite.boards.page.published import generated

    drawn = {
        f"plots/{number}-{file_name(board.title)}-{file_name(caption)}.svg": svg
        for number, board in enumerate(shown, 1)
        for caption, svg in plots(board)
    }
    return {**generated(shown, {}), **drawn}


def events_of(made: Record, begun: Opening) -> list[Event]:
    """A run's journal as its record gives it: parameters, loss, results, the record itself, and the end.

    Times between start and end are spread evenly, because a record holds none.
    """
    start = round(datetime.fromisoformat(made.created).timestamp() * 1000)
    length = round(1000 * made.timing.wall_s) if made.timing else 0
    end, steps = start + length, max((step for step, _ in made.loss_trace), default=1)
    metrics, tags = publish.results_of_run(made, primary_metric(made))
    first: Event = {
        "kind": "start",
        "time": start,
        "tags": begun.tags,
        "experiment": begun.experiment,
        "run_name": begun.run_name,
        "params": _texts(begun.params),
        "tracking_id": FROM_RECORD + made.hash,
        "run_id": "",
        "experiment_tags": begun.experiment_tags,
        "dataset": begun.dataset,
    }
    losses: list[Event] = [
        {
            "kind": "metrics",
            "time": start + length * step // max(steps, 1),
            "step": step,
            "values": {"train/loss": loss},
        }
        for step, loss in made.loss_trace
    ]
    text = made.model_dump_json(by_alias=True, indent=1)
    return [
        first,
        *losses,
        {"kind": "summary", "time": end, "step": steps, "values": metrics},
        {"kind": "tags", "time": end, "tags": tags},
        {"kind": "text", "time": end, "name": NAME, "text": text},
        {"kind": "finish", "time": end, "status": publish.STATUS[made.status]},
    ]


def _texts(params: dict[str, Any]) -> dict[str, str]:
    return {name: str(value)[:6000] for name, value in params.items()}

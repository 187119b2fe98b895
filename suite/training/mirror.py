"""What a run sends to tracking: parameters, tags, results, its record, and the board of its task. Tracking is a copy;
the record is authoritative.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict

from suite.boards import board
from suite.boards.tracked import publish
from suite.boards.tracked.opening import opening
from suite.records import runs_folder
from suite.records.collection import read_all
from suite.records.record import NAME
from suite.records.schema import Record
from suite.tracking.client import Tracker
from suite.training.job import Ending, Job, assemble


def open_tracker(job: Job, warn: Callable[[str], None]) -> Tracker:
    """Starts tracking a run, or continues it when the run is resumed. Each task is one experiment."""
    begun = assemble(job, Ending("interrupted", None, 1), None, None)
    return Tracker(
        home=runs_folder.home(),
        run_dir=job.folder,
        warn=warn,
        resume=job.resume is not None,
        **asdict(opening(begun)),
    )


def close_tracker(job: Job, made: Record, tracker: Tracker) -> None:
    """Sends results and the record, the task's board where this process delivers, and the run's end and status."""
    metrics, tags = publish.results_of_run(made, job.task.primary)
    tracker.summary(metrics)
    tracker.set_tags(tags)
    tracker.artifact_text(NAME, made.sealed().model_dump_json(by_alias=True, indent=1))
    if tracker.delivers:  # a sweep publishes its boards when it ends
        found = read_all()
        others = [r for r in found.records if r.id != made.id]
        boards = board.boards([*others, made], found.refused, task=made.task)
        publish.publish(tracker, boards, job.task.primary)
    tracker.finish(publish.STATUS[made.status])

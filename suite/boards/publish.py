"""What the tracking store shows of boards: the metrics of a run, and the task's board as a note and a table of runs."""

from __future__ import annotations

import math
from collections.abc import Sequence

from suite.boards import columns
from suite.boards.board import Board
from suite.boards.markdown import markdown
from suite.boards.rows import Row
from suite.records.schema import Record
from suite.tracking.client import Tracker
from tasks.base import Metric

METRIC = "metrics."


def metrics_of_run(made: Record, metric: Metric) -> dict[str, float]:
    """The values of a run that the store's table of runs shows, by their names there."""
    results = made.metrics.get("test", {})
    alone = Row(made.mixer, made.mixer, (made,), results.get(metric.name, math.nan))
    values = {column.key(metric): column.value(alone) for column in columns.COLUMNS if column.mlflow}
    return {
        key.removeprefix(METRIC): float(value)
        for key, value in values.items()
        if key.startswith(METRIC) and value is not None and math.isfinite(value)
    }


def publish(tracker: Tracker, boards: Sequence[Board], metric: Metric) -> None:
    """Sends the boards of a task to the store: as its note, and which columns its table of runs has."""
    tracker.board(
        "\n".join(markdown(board) for board in boards),
        primary_metric=f"test/{metric.name}",
        ascending=not metric.higher_is_better,
        columns=[column.key(metric) for column in columns.COLUMNS if column.mlflow],
    )

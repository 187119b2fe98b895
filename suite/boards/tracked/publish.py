"""What the tracking store shows of results: the metrics of a run, and a task's boards with one run per row."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from suite.boards import words
from suite.boards.board import Board
from suite.boards.columns import table
from suite.boards.markdown import markdown
from suite.boards.naming import untuned_configuration
from suite.boards.rows import Row
from suite.config.identity import digest
from suite.console import format_metric
from suite.records.schema import Record
from suite.safe_text import markdown_text
from suite.tracking.client import Status, Tracker
from suite.tracking.ranked_board import PLACE, RANK, RankedBoard, RankedRow, SeedRun
from tasks.base import Metric

METRIC = "metrics."
STATUS: Mapping[str, Status] = {
    "finished": "FINISHED",
    "failed": "FAILED",
    "diverged": "FAILED",
    "interrupted": "KILLED",
}
_KEY_LETTERS = 16


def metrics_of_run(made: Record, metric: Metric) -> dict[str, float]:
    """The values of a run that the store's table of runs shows, by their names there."""
    results = made.metrics.get("test", {})
    alone = Row(made.mixer, made.mixer, (made,), results.get(metric.name, math.nan))
    values = {column.key(metric): column.value(alone) for column in table.COLUMNS if column.mlflow}
    return {
        key.removeprefix(METRIC): float(value)
        for key, value in values.items()
        if key.startswith(METRIC) and value is not None and math.isfinite(value)
    }


def results_of_run(made: Record, metric: Metric) -> tuple[dict[str, float], dict[str, str]]:
    """All metrics of a run that has ended, and the tags of its end."""
    metrics = {
        f"{split}/{name}": value
        for split in ("test", "test_skip")
        for name, value in made.metrics.get(split, {}).items()
    }
    if made.timing:
        metrics |= {f"time/{name}": value for name, value in made.timing.model_dump().items()}
    metrics |= {**metrics_of_run(made, metric), "peak_memory_bytes": made.peak_memory_bytes}
    replaces = bool(made.resumed_at)  # the reason of an earlier end may be in the store
    return metrics, {"result": made.status, **({"error": made.error or ""} if made.error or replaces else {})}


def publish(tracker: Tracker, boards: Sequence[Board], metric: Metric) -> None:
    """Sends the boards of a task to the store: note, columns of the table of runs, and rows."""
    tracker.board(note(boards), boards=[ranked(board) for board in boards if board.rows], **view(metric))


def note(boards: Sequence[Board]) -> str:
    """The note of a task's experiment, in Markdown."""
    return "\n".join(markdown(board) for board in boards)


def view(metric: Metric) -> dict[str, Any]:
    """The table of a task's runs, as `Tracker.board` has it."""
    return {
        "primary_metric": f"test/{metric.name}",
        "ascending": not metric.higher_is_better,
        "columns": [column.key(metric) for column in table.COLUMNS if column.mlflow],
    }


def ranked(board: Board) -> RankedBoard:
    """A board as the store has it: one run per row.

    Args:
        board: with at least one row.

    Returns:
        Plain values.
    """
    made = board.rows[0].first
    versions = made.versions.task, made.versions.training
    shown = [column.ranked for column in table.COLUMNS if column.ranked and column.ranked != PLACE]
    key = digest([made.task, made.scale, made.group, made.precision, *versions, made.data.fingerprint])
    return RankedBoard(
        key=key[:_KEY_LETTERS],
        title=board.title.removeprefix(f"{board.task} · "),
        group=made.group,
        data=made.data.fingerprint,
        columns=(*(f"{METRIC}{name}" for name in (RANK, *shown)), "tags.ranks"),
        rows=tuple(_row(row, board) for row in board.rows),
    )


def _row(row: Row, board: Board) -> RankedRow:
    values = {column.ranked: _number(column.value(row)) for column in table.COLUMNS if column.ranked}
    rank = row.figures.rank if row.figures and not row.unranked else None
    values[RANK] = rank.first if rank else None
    place = f"#{rank}" if rank else "–"
    result = words.value(row, board.metric)
    remark = row.unranked or f"rank {words.place(row)}"
    figures = (
        f"**{place} {markdown_text(row.mixer)}**: {board.metric.name} {result}, {len(row.records)} seed(s), {remark}"
    )
    name = board.metric.name
    return RankedRow(
        key=untuned_configuration(row.first)[:_KEY_LETTERS],
        name=f"{place} {row.mixer}" + (f" ({row.unranked})" if row.unranked else ""),
        result=figures,
        metrics={name: _rounded(value) for name, value in values.items() if value is not None},
        tags={
            "mixer": row.first.mixer,
            "scale": board.scale,
            "matched": str(row.first.certificate.matched).lower(),
            "ranks": words.place(row),
        },
        runs=tuple(
            SeedRun(each.id, each.seed, format_metric(board.metric, each.metrics["test"][name])) for each in row.records
        ),
    )


def _rounded(value: float) -> float:
    """As many digits as a table needs; counts stay whole."""
    return value if value == round(value) else float(f"{value:.4g}")


def _number(value: object) -> float | None:
    """A column's value as a metric: of a list its length, of an estimate with an interval the estimate."""
    if isinstance(value, Mapping):
        value = value.get("estimate")
    if isinstance(value, list):
        return float(len(value))
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None

"""The task's board in MLflow's UI: the experiment's note, and a saved view of its runs.

A saved view is an experiment tag whose value is JSON and contains the table's state as a JSON string. The format is
that of the UI of MLflow 3.17 (the project pins this minor version). Nothing here imports MLflow.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

BOARD_VIEW = "suiteboard"
VIEW_TAG = "mlflow.sharedViewState."
_NOTE_LIMIT = 19_000  # characters; MLflow refuses experiment tags over 20,000
_RUN_NAME = "attributes.`Run Name`"
_RUN_NAME_PIXELS, _PIXELS, _PIXELS_PER_LETTER, _MARGIN_PIXELS = 260, 100, 8, 40


@dataclass(frozen=True)
class BoardView:
    """The initial table of runs: sorted by the primary metric, which is the first column, followed by `columns`.

    Columns are metrics, parameters and tags, written `metrics.test/top1`, `params.seed`, `tags.mixer`.
    """

    primary_metric: str
    ascending: bool
    columns: Sequence[str]


def board_tags(note_markdown: str, view: BoardView, now_ms: int) -> dict[str, str]:
    """The experiment tags of a board, by name."""
    note = (
        note_markdown if len(note_markdown) <= _NOTE_LIMIT else note_markdown[:_NOTE_LIMIT].rsplit("\n", 1)[0] + "\n\n…"
    )
    value = {"name": "Board", "createdAt": now_ms, "updatedAt": now_ms, "state": json.dumps(view_state(view))}
    return {
        "mlflow.experimentKind": "custom_model_development",
        "mlflow.note.content": note,
        VIEW_TAG + BOARD_VIEW: json.dumps(value),
    }


def view_state(view: BoardView) -> dict[str, Any]:
    """The state of the runs page: the search, the table and the charts."""
    primary = column_id(f"metrics.{view.primary_metric}")
    shown = list(dict.fromkeys([primary, *(column_id(column) for column in view.columns)]))
    widths = {column: max(_PIXELS, _MARGIN_PIXELS + _PIXELS_PER_LETTER * len(column.split("`")[1])) for column in shown}
    return {
        "searchFilter": "",
        "orderByKey": primary,
        "orderByAsc": view.ascending,
        "startTime": "ALL",
        "lifecycleFilter": "Active",
        "modelVersionFilter": "All Runs",
        "datasetsFilter": [],
        "selectedColumns": shown,
        "columnOrder": [_RUN_NAME, *shown],
        "columnWidths": {_RUN_NAME: _RUN_NAME_PIXELS, **widths},
        "runsHiddenMode": "FIRST_20_RUNS",
        "groupBy": None,
        "hideEmptyCharts": True,
        "useGroupedValuesInCharts": True,
    }


def column_id(column: str) -> str:
    """The UI's name of a column such as `metrics.test/top1`: the kind, then the name between backquotes."""
    kind, _, name = column.partition(".")
    if kind not in ("metrics", "params", "tags", "attributes") or not name:
        raise ValueError(f"column {column!r} is not one of metrics.NAME, params.NAME, tags.NAME, attributes.NAME")
    return f"{kind}.`{name}`"


def ui_url(base: str, experiment_id: str, view_id: str = BOARD_VIEW) -> str:
    """The address of an experiment's saved view; `base` is the server's address."""
    return (
        f"{base.rstrip('/')}/#/experiments/{quote(experiment_id)}/runs?"
        f"workflowType=machine_learning&viewStateShareKey={quote(view_id)}"
    )

"""A task's boards in MLflow's UI: the experiment's note, and saved views of its rows, its runs and their curves.

A saved view is an experiment tag whose value is JSON and contains the state of the runs page as a JSON string. The
format is that of the UI of MLflow 3.17 (the project pins this minor version). Nothing here imports MLflow.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from suite.tracking.ranked_board import BOARD_TAG, PLACE, RankedBoard

BOARD_VIEW, RUNS_VIEW, CURVES_VIEW = "suiteboard", "suiteruns", "suitecurves"
VIEW_TAG = "mlflow.sharedViewState."
#: Which page the UI opens; MLflow 3.17 reads it from the address too.
KIND = {"mlflow.experimentKind": "custom_model_development"}
#: The tag of a run by which the curves are averaged over seeds.
CONFIGURATION_TAG = "configuration"
#: Boards of a task with views, the first ones: the UI shows at most 40 views.
MOST_BOARDS = 8
_NOTE_LIMIT = 19_000  # characters; MLflow refuses experiment tags over 20,000
_CREATED_MS = 1_700_000_000_000  # the UI lists views by it, the newest first; a constant leaves unchanged tags equal
_RUN_NAME = "attributes.`Run Name`"
_RUN_NAME_PIXELS, _PIXELS, _PIXELS_PER_LETTER, _MARGIN_PIXELS = 260, 100, 8, 40
#: The UI's own sections of charts, one for each prefix of names: closed, after ours.
_CLOSED = ("train", "valid", "test", "test_skip", "budget", "time", "Model metrics", "System metrics")


@dataclass(frozen=True)
class BoardView:
    """The initial table of runs: sorted by the primary metric, which is the first column, followed by `columns`.

    Columns are metrics, parameters and tags, written `metrics.test/top1`, `params.seed`, `tags.mixer`.
    """

    primary_metric: str
    ascending: bool
    columns: Sequence[str]


@dataclass(frozen=True)
class Chart:
    """A chart. LINE and BAR: of the metric `y`, by run; SCATTER: of `y` by the metric `x`."""

    kind: str
    y: str
    x: str = ""


@dataclass(frozen=True)
class View:
    """A saved view: which runs, in which order, with which columns, and the charts that are seen first.

    sections: name of a section of charts → its charts.
    group_by: the tag whose equal values are shown as one line, their mean; empty: none.
    """

    id: str
    name: str
    order_by: str
    ascending: bool
    columns: Sequence[str]
    search: str = ""
    sections: tuple[tuple[str, tuple[Chart, ...]], ...] = ()
    group_by: str = ""


def board_tags(note_markdown: str, view: BoardView, boards: Sequence[RankedBoard] = ()) -> dict[str, str]:
    """The experiment tags of a task's boards, by name."""
    note = (
        note_markdown if len(note_markdown) <= _NOTE_LIMIT else note_markdown[:_NOTE_LIMIT].rsplit("\n", 1)[0] + "\n\n…"
    )
    tags = {**KIND, "mlflow.note.content": note}
    for index, each in enumerate(views(view, boards)):
        moment = _CREATED_MS - index
        value = {"name": each.name, "createdAt": moment, "updatedAt": moment, "state": json.dumps(view_state(each))}
        tags[VIEW_TAG + each.id] = json.dumps(value)
    return tags


def is_own_view(tag: str) -> bool:
    """Whether a tag holds a view that the suite writes, not one that a user saved."""
    name = tag.removeprefix(VIEW_TAG)
    return tag.startswith(VIEW_TAG) and name.partition("-")[0] in (BOARD_VIEW, RUNS_VIEW, CURVES_VIEW)


def views(view: BoardView, boards: Sequence[RankedBoard]) -> Iterator[View]:
    """Three views of each board, in the order in which the UI lists them. Without boards, one of all runs."""
    primary = f"metrics.{view.primary_metric}"
    columns = (primary, *view.columns)
    if not boards:
        yield View(BOARD_VIEW, "Board", primary, view.ascending, columns)
    for index, board in enumerate(boards[:MOST_BOARDS]):
        last, label = (f"-{board.key}", f" · {board.title}") if index else ("", "")
        own = f"tags.{BOARD_TAG} = '{board.key}'"
        runs = " and ".join(
            f"tags.`{tag}` = '{text}'"
            for tag, text in (("group", board.group), ("data.fingerprint", board.data))
            if "'" not in text  # a third party's fingerprint may be any text
        )
        metric = view.primary_metric.partition("/")[2]
        curves = ("loss curves", (Chart("LINE", "train/loss"), Chart("LINE", f"valid/{metric}")))
        result = ("result", (Chart("BAR", view.primary_metric),))
        yield View(BOARD_VIEW + last, f"Board{label}", f"metrics.{PLACE}", True, board.columns, own, _OF_ROWS)
        yield View(RUNS_VIEW + last, f"Runs{label}", primary, view.ascending, columns, runs, (result, curves))
        yield View(
            CURVES_VIEW + last,
            f"Curves{label}",
            primary,
            view.ascending,
            columns,
            runs,
            (curves, result),
            CONFIGURATION_TAG,
        )


_OF_ROWS = (
    ("result", (Chart("BAR", "value"), Chart("BAR", "exchange_rate"))),
    ("result and cost", (Chart("SCATTER", "value", "flops"), Chart("SCATTER", "value", "state_bytes"))),
)


def view_state(view: View) -> dict[str, Any]:
    """The state of the runs page: the search, the table and the charts."""
    shown = list(dict.fromkeys(column_id(column) for column in view.columns))
    widths = {column: max(_PIXELS, _MARGIN_PIXELS + _PIXELS_PER_LETTER * len(column.split("`")[1])) for column in shown}
    group = {"aggregateFunction": "average", "groupByKeys": [{"mode": "tag", "groupByData": view.group_by}]}
    return {
        "searchFilter": view.search,
        "orderByKey": column_id(view.order_by),
        "orderByAsc": view.ascending,
        "startTime": "ALL",
        "lifecycleFilter": "Active",
        "modelVersionFilter": "All Runs",
        "datasetsFilter": [],
        "selectedColumns": shown,
        "columnOrder": [_RUN_NAME, *shown],
        "columnWidths": {_RUN_NAME: _RUN_NAME_PIXELS, **widths},
        "runsHiddenMode": "FIRST_20_RUNS",
        "groupBy": group if view.group_by else None,
        "hideEmptyCharts": True,
        "useGroupedValuesInCharts": True,
        **(_charts(view) if view.sections else {}),
    }


def _charts(view: View) -> dict[str, Any]:
    """Our sections, open, before those that the UI makes from the names of metrics, closed."""
    charts = [_chart(chart, name, number) for name, charts in view.sections for number, chart in enumerate(charts)]
    opened = [_section(name, shown=True) for name, _ in view.sections]
    return {
        "compareRunCharts": charts,
        "compareRunSections": [*opened, *(_section(name, shown=False) for name in _CLOSED)],
        "isAccordionReordered": True,
    }


def _section(name: str, *, shown: bool) -> dict[str, Any]:
    state = {"display": shown, "isReordered": True, "deleted": False, "isGenerated": False}
    return {"uuid": f"section-{name}", "name": name, **state}


def _chart(chart: Chart, section: str, number: int) -> dict[str, Any]:
    common = {
        "uuid": f"chart-{section}-{number}",
        "type": chart.kind,
        "metricSectionId": f"section-{section}",
        "runsCountToCompare": 100,
        "deleted": False,
        "isGenerated": False,
    }
    if chart.kind == "SCATTER":
        axes = {"xaxis": {"key": chart.x, "type": "METRIC"}, "yaxis": {"key": chart.y, "type": "METRIC"}}
        return {**common, **axes, "displayName": f"{chart.y} and {chart.x}"}
    common |= {"metricKey": chart.y, "displayName": chart.y}
    if chart.kind == "BAR":
        return common
    return {
        **common,
        "selectedMetricKeys": [chart.y],
        "lineSmoothness": 0,
        "xAxisKey": "step",
        "selectedXAxisMetricKey": "",
        "xAxisScaleType": "linear",
        "scaleType": "linear",
        "range": {},
        "yAxisKey": "metric",
        "yAxisExpressions": [],
        "ignoreOutliers": False,
        "useGlobalXaxisKey": True,
        "useGlobalLineSmoothing": True,
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

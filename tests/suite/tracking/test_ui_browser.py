"""The saved views of a task's board in a real browser, for runs tracked as the runner tracks them."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser

import pytest

from suite.tracking.ranked_board import RankedBoard, RankedRow
from tests.suite.tracking.tracked_runs import free_port, responds, tracker, wait_for

_BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
_FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--window-size=1600,1000",
    "--virtual-time-budget=30000",
]
_COLUMNS = ["tags.mixer", "tags.seed", "tags.matched", "metrics.test/top1", "metrics.valid/top1", "params.train.lr"]
# Ordered neither by the metric, in either direction, nor by name.
_RUNS = {"softmax": 0.8081234, "fem": 0.8212345, "no-mixing": 0.6104444, "gla": 0.7952222, "hypermlp": 0.8030001}


class _Table(HTMLParser):
    """Collects a grid's rows, as {row index: texts}, and its visible columns."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: dict[int, list[str]] = {}
        self.text: list[str] = []
        self._columns: dict[str, int] = {}
        self._row: int | None = None
        self._depth = 0

    @property
    def columns(self) -> list[str]:
        """From left to right, which is not their order in the document."""
        return sorted(self._columns, key=self._columns.__getitem__)

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        if tag == "div":
            if self._row is not None:
                self._depth += 1
            elif "row-index" in given and given["row-index"].isdigit():
                self._row, self._depth = int(given["row-index"]), 1
        if given.get("role") == "columnheader" and given.get("col-id"):
            self._columns[given["col-id"]] = int(given["aria-colindex"])

    def handle_endtag(self, tag):
        if tag == "div" and self._row is not None:
            self._depth -= 1
            if self._depth == 0:
                self._row = None

    def handle_data(self, data):
        self.text.append(data)
        if self._row is not None and data.strip():
            self.rows.setdefault(self._row, []).append(data.strip())


def _ranked() -> RankedBoard:
    """The rows in the order of their names, not of their places; their ranks are equal."""
    ranks = {mixer: rank for rank, mixer in enumerate(sorted(_RUNS, key=_RUNS.__getitem__, reverse=True), 1)}
    ordered = [
        RankedRow(mixer, f"#{place} {mixer}", mixer, {"rank": 1.0, "place": float(place), "value": _RUNS[mixer]}, {})
        for mixer, place in sorted(ranks.items())
    ]
    return RankedBoard("b", "quick", "g", "f", ("metrics.rank", "metrics.value"), tuple(ordered))


@pytest.fixture(scope="module")
def board(tmp_path_factory):
    """A runs folder with five finished runs of one task and its board."""
    home = tmp_path_factory.mktemp("runs")
    trackers = []
    for mixer, top1 in _RUNS.items():
        tracked = tracker(
            home,
            f"run-{mixer}",
            experiment="fashion-mnist",
            run_name=f"{mixer} · quick · seed 0",
            params={"train.lr": 1e-3},
            tags={
                "mixer": mixer,
                "configuration": mixer,
                "seed": "0",
                "matched": str(mixer != "no-mixing").lower(),
                "group": "g",
                "data.fingerprint": "f",
            },
        )
        for step in range(0, 600, 50):
            tracked.log(step, {"train/loss": 2.3 - step / 400})
        tracked.summary({"test/top1": top1, "valid/top1": top1 + 0.004, "budget/parameters": 798_720})
        trackers.append(tracked)
    trackers[-1].board(
        "**fem leads fashion-mnist**: 82.1 % top-1\n\n| mixer | top-1 |\n|---|---|\n| fem | 82.1 % |\n",
        primary_metric="test/top1",
        ascending=False,
        columns=_COLUMNS,
        boards=[_ranked()],
    )
    for tracked in trackers:
        tracked.finish("FINISHED")
        assert tracked.run is not None
    return home


def _first(pattern: str, text: str) -> str:
    match = re.search(pattern, text)
    assert match is not None, (pattern, text)
    return match.group()


def _page(url, profile):
    """The rendered page."""
    assert _BROWSER is not None
    done = subprocess.run(
        [_BROWSER, *_FLAGS, f"--user-data-dir={profile}", "--dump-dom", url],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    table = _Table()
    table.feed(done.stdout)
    return table


@pytest.fixture(scope="module")
def address(board):
    """The address of the view Board on a running server."""
    port = free_port()
    code = (
        f"import sys; from pathlib import Path; from suite.tracking.ui.server import serve; "
        f"sys.exit(serve(Path(sys.argv[1]), {port}))"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(board)], stdout=subprocess.PIPE, text=True) as server:
        try:
            wait_for(lambda: responds(f"http://127.0.0.1:{port}/health"), "the UI responds")
            assert server.stdout is not None
            yield server.stdout.readline().split(": ", 1)[1].strip()
        finally:
            server.terminate()  # SIGINT is ignored in processes that a shell started in the background


def _shown(address, view, profile, *, charts=False):
    """The page of a view. A busy machine may not render the rows within the browser's time budget."""
    url = address.replace("=suiteboard", f"={view}") + ("&compareRunsMode=CHART" if charts else "")
    for attempt in range(3):
        table = _page(url, profile / f"{view}-{attempt}")
        if len(table.rows) >= len(_RUNS):
            break
    return table


needs_browser = pytest.mark.skipif(
    _BROWSER is None and os.environ.get("SUITE_REQUIRE_BROWSER") != "1", reason="no chromium here"
)


@pytest.mark.slow
@needs_browser
def test_the_view_board_has_one_run_per_row_ordered_by_rank(address, tmp_path):
    table = _shown(address, "suiteboard", tmp_path)
    names = [_first(r"#\d \S+", " ".join(table.rows[index])) for index in sorted(table.rows)]
    best_first = sorted(_RUNS, key=_RUNS.__getitem__, reverse=True)
    assert names == [f"#{rank} {mixer}" for rank, mixer in enumerate(best_first, 1)]
    shown = [column for column in table.columns if "`" in column and column != "attributes.`Run Name`"]
    assert shown[:2] == ["metrics.`rank`", "metrics.`value`"]
    text = " ".join(table.text)
    assert "fem leads fashion-mnist" in text
    assert "Model training" in text


@pytest.mark.slow
@needs_browser
def test_the_view_runs_shows_the_best_run_first_with_the_chosen_columns(address, tmp_path):
    table = _shown(address, "suiteruns", tmp_path)
    lines = [" ".join(table.rows[index]) for index in sorted(table.rows)]
    expected = sorted(_RUNS, key=_RUNS.__getitem__, reverse=True)
    names = [_first(r"\S+ · quick · seed 0", row) for row in lines]
    assert names == [f"{mixer} · quick · seed 0" for mixer in expected]
    values = [float(_first(r"\b0\.\d+", row)) for row in lines]
    assert values == pytest.approx([_RUNS[mixer] for mixer in expected], abs=1e-3)
    shown = [column for column in table.columns if "`" in column and column != "attributes.`Run Name`"]
    assert shown[:4] == ["metrics.`test/top1`", "tags.`mixer`", "tags.`seed`", "tags.`matched`"]


@pytest.mark.slow
@needs_browser
@pytest.mark.parametrize(
    ("view", "sections"),
    [
        ("suiteboard", ["result", "result and cost"]),
        ("suiteruns", ["result", "loss curves"]),
        ("suitecurves", ["loss curves", "result"]),
    ],
)
def test_the_charts_begin_with_the_result_and_the_loss_curves(address, tmp_path, view, sections):
    text = " ".join(_shown(address, view, tmp_path, charts=True).text)
    titles = re.findall(r"(result and cost|result|loss curves|train|budget|Model metrics)\s*\(\d+\)", text)
    assert titles[:2] == sections

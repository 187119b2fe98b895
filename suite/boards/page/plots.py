"""The plots of a board as SVG text, equal for equal records: what mixers cost and reach, and how they were tuned."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, MaxNLocator

from suite.boards.board import Board
from suite.boards.page.curves import COLOURS, STYLE, look, training_curves
from suite.boards.rows import Row, curve_factor, is_reference

MARKERS = "osD^vP*X<>"
SIZE = (5.2, 3.2)


def plots(board: Board) -> list[tuple[str, str]]:
    """The plots of a board.

    Args:
        board: any board.

    Returns:
        Caption and SVG text of each plot that has something to show.
    """
    rows = [row for row in board.rows if not row.unranked]
    lines = distinct_lines(rows)
    which = "" if len(lines) == len(rows) else f", of the best {len(lines)} with softmax"
    drawn = [
        ("Quality and FLOPs of a forward pass", _costs(board, rows, lambda row: row.first.certificate.flops, "FLOPs")),
        (
            "Quality and decoding state",
            _costs(board, rows, lambda row: row.first.certificate.state_bytes, "bytes at the task's length"),
        ),
        (f"Training loss: mean of the seeds, and their range{which}", _training(lines)),
        (f"Validation at each learning rate of the race{which}", _rates(board, lines)),
        ("Softmax at several sizes (mean and 95 % interval), and the other mixers", _curve(board)),
    ]
    return [(caption, svg) for caption, svg in drawn if svg]


def distinct_lines(rows: Sequence[Row]) -> list[Row]:
    """The rows whose lines one plot can hold: as many as there are colours, the best ones, softmax always among them.

    Args:
        rows: of a board, the best one first.

    Returns:
        At most as many rows as there are colours, in order.
    """
    kept, others = list(rows[: len(COLOURS)]), rows[len(COLOURS) :]
    reference = [row for row in others if is_reference(row)]
    return [*kept[: len(COLOURS) - len(reference)], *reference]


def _costs(board: Board, rows: Sequence[Row], cost: Callable[[Row], int], label: str) -> str:
    shown = [row for row in rows if cost(row) > 0]
    if not shown:
        return ""

    def draw(axes: Any) -> None:
        for i, row in enumerate(shown):
            half = row.figures.half_width if row.figures else 0.0
            axes.errorbar(
                cost(row), _scaled(board, row.mean), _scaled(board, half), fmt=MARKERS[i % 10], **look(i, row.entry)
            )
        axes.xaxis.set_major_formatter(EngFormatter())
        axes.xaxis.set_major_locator(MaxNLocator(4))
        axes.set_xlabel(label)
        axes.set_ylabel(_axis(board, "test"))

    return _svg(draw)


def _training(rows: Sequence[Row]) -> str:
    return _svg(lambda axes: training_curves(axes, {row.entry: row.records for row in rows})) if rows else ""


def _rates(board: Board, rows: Sequence[Row]) -> str:
    shown = [row for row in rows if row.race and len(row.race.finals) > 1]
    if not shown:
        return ""

    def draw(axes: Any) -> None:
        for i, row in enumerate(shown):
            assert row.race is not None
            points = [
                (rate, np.mean([_scaled(board, made.metrics["valid"][made.primary_metric]) for made in runs]))
                for rate, runs in sorted(row.race.screened.items())
            ]
            axes.plot(*zip(*points, strict=True), marker=MARKERS[i % 10], linewidth=1, **look(i, row.entry))
        axes.set_xscale("log")
        rates = sorted({rate for row in shown if row.race for rate in row.race.screened})
        axes.set_xticks(rates, [f"{rate:.2g}" for rate in rates])
        axes.set_xticks([], minor=True)
        axes.set_xlabel("learning rate")
        axes.set_ylabel(_axis(board, "validation"))

    return _svg(draw)


def _curve(board: Board) -> str:
    sizes = [(factor, row) for row in board.rows if row.figures and (factor := curve_factor(row)) is not None]
    if len(sizes) < 2:
        return ""

    def draw(axes: Any) -> None:
        ordered = sorted(sizes, key=lambda pair: pair[0])
        means = [_scaled(board, row.mean) for _, row in ordered]
        halves = [_scaled(board, row.figures.half_width) for _, row in ordered if row.figures]
        axes.errorbar([f for f, _ in ordered], means, halves, marker="o", linewidth=1, **look(0, "softmax"))
        others = [row for row in board.rows if not row.unranked and curve_factor(row) is None]
        for i, row in enumerate(others, 1):
            axes.plot([1.0], [_scaled(board, row.mean)], MARKERS[i % 10], **look(i, row.entry))
        axes.set_xlabel("parameters of softmax's")
        axes.set_ylabel(_axis(board, "test"))

    return _svg(draw)


def _scaled(board: Board, value: float) -> float:
    return 100 * value if board.metric.unit == "%" else value


def _axis(board: Board, split: str) -> str:
    metric = board.metric
    return f"{split} {metric.name}{', ' + metric.unit if metric.unit else ''} {'↑' if metric.higher_is_better else '↓'}"


def _svg(draw: Callable[[Any], None]) -> str:
    """The figure as SVG for a page: black is the page's text colour, numbers have one digit after the point."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=SIZE, layout="constrained")
        axes = figure.add_subplot()
        draw(axes)
        figure.legend(*axes.get_legend_handles_labels(), loc="outside right upper", frameon=False, fontsize=7)
        stream = io.StringIO()
        figure.savefig(stream, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = stream.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>\s*", "", text, flags=re.DOTALL)
    text = re.sub(r"<[^>]*>", lambda tag: re.sub(r"(\d+\.\d)\d+", r"\1", tag[0]), text)
    return re.sub(r"\n\s*", "\n", text).replace("#000000", "currentColor").replace("<svg ", '<svg role="img" ', 1)

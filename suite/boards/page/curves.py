"""Training curves of groups of runs: the mean of the seeds, and their range."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from suite.records.schema import Record

#: Okabe and Ito's colours (2008), which most readers can distinguish, on light and dark.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#999933", "#882255", "#44aa99", "#999999")
#: Points of a curve: the page of a board with thirty rows must stay below 100 kB.
POINTS = 20
FORMATS = ("svg", "png", "pdf")
#: Equal curves are equal files.
UNDATED: dict[str, Any] = {".svg": {"Date": None}, ".pdf": {"CreationDate": None}}
STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "mixer-suite",
    "font.size": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
}


def look(i: int, label: str) -> dict[str, Any]:
    """How group `i` of a plot is drawn.

    Args:
        i: from 0; colours repeat after ten.
        label: its name in the legend.

    Returns:
        Arguments of matplotlib.
    """
    return {"color": COLOURS[i % len(COLOURS)], "label": label, "markersize": 4}


def training_curves(axes: Any, groups: Mapping[str, Sequence[Record]]) -> None:
    """Draws the training loss of each group.

    Args:
        axes: of matplotlib.
        groups: name → runs of different seeds, each with a loss trace.
    """
    for i, (name, records) in enumerate(groups.items()):
        steps, losses_SP = _losses(records)
        drawn = look(i, name)
        axes.plot(steps, losses_SP.mean(axis=0), linewidth=1, **drawn)
        if len(losses_SP) > 1:
            band = losses_SP.min(axis=0), losses_SP.max(axis=0)
            axes.fill_between(steps, *band, color=drawn["color"], alpha=0.12, linewidth=0)
    axes.set_xlabel("step")
    axes.set_ylabel("training loss")


def save(groups: Mapping[str, Sequence[Record]], path: Path) -> None:
    """Writes the training curves to a file.

    Args:
        groups: as for `training_curves`.
        path: its suffix is one of `FORMATS`.

    Raises:
        OSError: the file cannot be written.
    """
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(7.0, 4.0), layout="constrained")
        axes = figure.add_subplot()
        training_curves(axes, groups)
        figure.legend(*axes.get_legend_handles_labels(), loc="outside right upper", frameon=False)
        figure.savefig(path, dpi=200, metadata=UNDATED.get(path.suffix))


def _losses(records: Sequence[Record]) -> tuple[np.ndarray, np.ndarray]:
    """Steps, and losses [seeds, points]: means over equal parts of the trace, cut where the shortest run ended."""
    length = min(len(made.loss_trace) for made in records)
    parts = np.array_split(np.arange(length), min(POINTS, length))
    traces = np.array([[loss for _, loss in made.loss_trace[:length]] for made in records])
    steps = np.array([step for step, _ in records[0].loss_trace[:length]])
    return (
        np.array([steps[part].mean() for part in parts]),
        np.stack([traces[:, part].mean(axis=1) for part in parts], axis=1),
    )

"""Accuracy against the bytes of decoding state. One panel per difficulty, one curve per mixer, one point per size.

    for n in 4 16; do for d in 32 64; do for m in softmax gla ssm; do
      suite run --task mqar --mixer $m --scale board --set pairs=$n --set vocab=64 --set dim=$d
    done; done; done
    suite leaderboard --task mqar --json | python examples/accuracy_by_state.py recall.svg

Each point is a mixer's mean test accuracy over its seeds, the bar from the worst to the best, at its certificate's
decoding state at the task's length. Boards that differ only in the model's size share a panel; hollow points are runs
that are not matched, such as `--unmatched --set mixer.d_k=4`, which changes the state of `gla` and little else.
"""

from __future__ import annotations

import json
import re
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from suite.models.resolve import resolve

SIZES = ("dim", "depth", "heads", "ffn_width")  # of the model: they move a point along its mixer's curve
OF_A_POINT = re.compile(r"(, )?\b(d_[kv]|lr|weight_decay)=[^,)]+")  # in a row's name: a mixer's width, its tuned rates
Board = Mapping[str, Any]
Point = tuple[int, float, float, float, bool]  # state bytes; accuracy: mean, worst and best seed; whether it is matched


def draw(boards: Sequence[Board]) -> Figure:
    """The boards whose metric is accuracy, as `suite leaderboard --json` prints them. Raises ValueError where there is
    none.
    """
    panels = _panels(boards)
    if not panels:
        raise ValueError("no board of a recall task was given; run some first: suite run --task mqar --mixer softmax")
    mixers = sorted({mixer for curves in panels.values() for mixer in curves})
    common = set.intersection(*(set(difficulty) for difficulty in panels))
    figure, axes = plt.subplots(1, len(panels), figsize=(2.2 + 2.6 * len(panels), 3.4), sharey=True, squeeze=False)
    for panel, (difficulty, curves) in zip(axes[0], panels.items(), strict=True):
        _draw_panel(panel, curves, mixers)
        panel.set_title(" · ".join(part for part in difficulty if part not in common) or "all", fontsize=9)
    axes[0, 0].set(ylabel="test accuracy", ylim=(0, 1.03))
    figure.supxlabel("decoding state of a sequence, bytes", fontsize=10)
    figure.suptitle(" · ".join(part for part in next(iter(panels)) if part in common), fontsize=8)
    figure.legend(*_legend(axes[0]), loc="outside right center", fontsize=8)
    figure.set_layout_engine("constrained")
    return figure


def _panels(boards: Sequence[Board]) -> dict[tuple[str, ...], dict[str, list[Point]]]:
    """For each difficulty, easy ones first if they have a number, the points of each mixer from small states to large
    ones.
    """
    panels: dict[tuple[str, ...], dict[str, list[Point]]] = defaultdict(lambda: defaultdict(list))
    shown = [board for board in boards if board["metric"] == "accuracy"]
    names = {part.partition("=")[0] for board in shown for part in board["deviations"]} - {*SIZES}
    for board in shown:
        changed = [f"{name}={value}" for name, value in _options(board).items() if name in names]
        for row in board["rows"]:
            point = row["state_bytes"], row["mean"], min(row["values"]), max(row["values"]), row["matched"]
            curve = OF_A_POINT.sub("", row["mixer"]).replace("(, ", "(").replace(" ()", "")
            panels[board["task"], board["scale"], *changed][curve].append(point)
    by_number = sorted(panels, key=lambda parts: [(*_numbered(part),) for part in parts])
    return {parts: {mixer: sorted(points) for mixer, points in panels[parts].items()} for parts in by_number}


def _options(board: Board) -> dict[str, str]:
    """The board's options of data, model and training: the shipped recipe's, and what deviates from it."""
    shipped = resolve(task=board["task"], mixer="softmax", scale=board["scale"]).canonical()
    usual = {name: str(value) for section in ("data", "model", "train") for name, value in shipped[section].items()}
    return usual | dict(part.split("=", 1) for part in board["deviations"] if "=" in part)


def _numbered(part: str) -> tuple[str, float]:
    """A key that puts `pairs=4` before `pairs=16`."""
    name, _, value = part.partition("=")
    return (name, float(value)) if value.replace(".", "", 1).isdecimal() else (part, 0.0)


def _draw_panel(panel: Axes, curves: Mapping[str, Sequence[Point]], mixers: Sequence[str]) -> None:
    for mixer, points in curves.items():
        state, mean, worst, best, matched = zip(*points, strict=True)
        spread = [[m - w for m, w in zip(mean, worst, strict=True)], [b - m for m, b in zip(mean, best, strict=True)]]
        panel.errorbar(
            state, mean, yerr=spread, fmt="o-", label=mixer, color=f"C{mixers.index(mixer)}", alpha=0.85, capsize=2
        )
        hollow = [(s, m) for s, m, ranks in zip(state, mean, matched, strict=True) if not ranks]
        panel.plot([s for s, _ in hollow], [m for _, m in hollow], "o", color="white", markersize=3, zorder=3)
    panel.set_xscale("symlog", linthresh=64)  # a mixer without memory has 0 bytes
    panel.grid(alpha=0.3)


def _legend(panels: Sequence[Axes]) -> tuple[list[Any], list[str]]:
    """One entry a mixer, over all panels."""
    found = {
        label: handle for panel in panels for handle, label in zip(*panel.get_legend_handles_labels(), strict=True)
    }
    return list(found.values()), list(found)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(
            "one argument is needed, the picture's path; the boards come from: suite leaderboard --task mqar --json"
        )
    plt.rcParams["svg.fonttype"] = "none"  # letters, not their outlines: a quarter of the size
    draw(json.load(sys.stdin)).savefig(Path(sys.argv[1]), dpi=150)

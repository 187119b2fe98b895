"""Accuracy against the bytes a mixer remembers with: one curve a board of a recall task.

    for n in 4 8 16; do for m in softmax gla ssm; do suite run --task mqar --mixer $m --set pairs=$n --set length=64; done; done
    suite leaderboard --task mqar --json | python examples/accuracy_by_state.py recall.png

Each point is a mixer's mean test accuracy over its seeds, at the decoding state of its certificate.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.figure import Figure


def draw(boards: Sequence[Mapping[str, Any]]) -> Figure:
    """The boards whose metric is accuracy, as `suite leaderboard --json` prints them. Raises ValueError where there is none."""
    figure, axes = plt.subplots(figsize=(7, 4.5))
    for board in boards:
        points = sorted((row["state_bytes"], row["mean"], row["mixer"]) for row in board["rows"])
        if board["metric"] != "accuracy" or not points:
            continue
        label = " · ".join([board["task"], board["scale"], *board["deviations"]])
        axes.plot([p[0] for p in points], [p[1] for p in points], "o-", label=label, alpha=0.8)
        for state, accuracy, mixer in points:
            axes.annotate(mixer, (state, accuracy), textcoords="offset points", xytext=(4, 4), fontsize=7)
    if not axes.lines:
        plt.close(figure)
        raise ValueError("no board of a recall task was given; run some first: suite run --task mqar --mixer softmax")
    axes.set_xscale("symlog", linthresh=64)  # a mixer without memory has 0 bytes
    axes.set(xlabel="decoding state of a sequence, bytes", ylabel="test accuracy", ylim=(0, 1.02))
    axes.grid(alpha=0.3)
    axes.legend(fontsize=7)
    figure.tight_layout()
    return figure


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("one argument is needed, the picture's path; the boards come from: suite leaderboard --task mqar --json")
    draw(json.load(sys.stdin)).savefig(Path(sys.argv[1]), dpi=150)

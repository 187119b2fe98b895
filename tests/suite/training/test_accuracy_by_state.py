"""The example that draws accuracy against state bytes, from boards as the command line prints them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from matplotlib import pyplot as plt

from examples.accuracy_by_state import draw


def row(mixer: str, state: int, values: list[float], matched: bool = True) -> dict[str, Any]:
    return {
        "mixer": mixer,
        "state_bytes": state,
        "values": values,
        "mean": sum(values) / len(values),
        "matched": matched,
    }


def board(
    metric: str = "accuracy", deviations: tuple[str, ...] = (), **rows: tuple[int, list[float]]
) -> dict[str, Any]:
    made = [row(mixer, state, values) for mixer, (state, values) in rows.items()]
    return {"task": "mqar", "scale": "board", "metric": metric, "deviations": deviations, "rows": made}


def curves(panel) -> dict[str, tuple[list[int], list[float]]]:
    return {bars.get_label(): (list(bars[0].get_xdata()), list(bars[0].get_ydata())) for bars in panel.containers}


def test_each_difficulty_is_a_panel_and_each_mixer_a_curve_over_the_model_sizes():
    drawn = draw(
        [
            board(deviations=("pairs=16", "vocab=64", "dim=64"), gla=(8192, [0.5])),
            board(deviations=("vocab=64",), gla=(4096, [1.0]), softmax=(65536, [1.0])),
            board(deviations=("pairs=16", "vocab=64", "dim=32", "heads=1"), gla=(2048, [0.2])),
            board("top1", fem=(1, [1.0])),
        ]
    )
    assert [panel.get_title() for panel in drawn.axes] == ["pairs=4", "pairs=16"]  # 4 is the shipped recipe's
    assert drawn.get_suptitle() == "mqar · board · vocab=64"
    assert [curves(panel) for panel in drawn.axes] == [
        {"gla": ([4096], [1.0]), "softmax": ([65536], [1.0])},
        {"gla": ([2048, 8192], [0.2, 0.5])},
    ]
    assert [text.get_text() for text in drawn.legends[0].get_texts()] == ["gla", "softmax"]
    colours = [bars[0].get_color() for panel in drawn.axes for bars in panel.containers if bars.get_label() == "gla"]
    assert colours[0] == colours[1]
    plt.close(drawn)


def test_a_point_is_the_mean_over_seeds_and_its_bar_spans_worst_to_best():
    drawn = draw([board(gla=(8192, [0.25, 0.5, 1.5 / 2]))])
    bars = drawn.axes[0].containers[0]
    assert list(bars[0].get_ydata()) == [0.5]
    assert bars[2][0].get_segments()[0][:, 1].tolist() == [0.25, 0.75]
    plt.close(drawn)


def test_widths_of_a_mixer_are_points_of_its_curve_and_unmatched_ones_are_hollow():
    made = board()
    names = ("gla (host prior)", "gla (host prior, d_k=4)", "fem (d_k=4, lr=0.01)", "fem", "fem (temperature=off)")
    made["rows"] = [row(name, 64 * 2**i, [0.1 * i], matched="d_k" not in name) for i, name in enumerate(names)]
    drawn = draw([made])
    panel = drawn.axes[0]
    assert {name: x for name, (x, _) in curves(panel).items()} == {
        "gla (host prior)": [64, 128],
        "fem": [256, 512],
        "fem (temperature=off)": [1024],
    }
    hollow = [x for line in panel.lines if line.get_color() == "white" for x in np.asarray(line.get_xdata()).tolist()]
    assert sorted(hollow) == [128, 256]
    plt.close(drawn)


def test_without_a_board_of_a_recall_task_the_error_suggests_a_run():
    with pytest.raises(ValueError, match="suite run --task mqar"):
        draw([board("bits_per_byte", fem=(1, [1.0]))])

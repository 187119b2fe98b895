"""The example that draws accuracy against state bytes, from a board as the command line prints it."""

from __future__ import annotations

import pytest
from matplotlib import pyplot as plt

from examples.accuracy_by_state import draw


def board(metric: str = "accuracy", deviations: tuple[str, ...] = (), **rows: tuple[int, float]) -> dict:
    made = [{"mixer": mixer, "state_bytes": state, "mean": mean} for mixer, (state, mean) in rows.items()]
    return {"task": "mqar", "scale": "board", "metric": metric, "deviations": deviations, "rows": made}


def test_each_board_of_a_recall_task_is_a_curve_over_its_mixers_states():
    drawn = draw(
        [board(softmax=(65536, 1.0), gla=(8192, 0.5)), board(deviations=("pairs 8",), gla=(8192, 0.2)), board("top1", fem=(1, 1.0))]
    )
    axes = drawn.axes[0]
    assert [(list(line.get_xdata()), list(line.get_ydata())) for line in axes.lines] == [([8192, 65536], [0.5, 1.0]), ([8192], [0.2])]
    assert [line.get_label() for line in axes.lines] == ["mqar · board", "mqar · board · pairs 8"]
    assert [text.get_text() for text in axes.texts] == ["gla", "softmax", "gla"]
    plt.close(drawn)


def test_without_a_board_of_a_recall_task_it_says_what_to_run():
    with pytest.raises(ValueError, match="suite run --task mqar"):
        draw([board("bits_per_byte", fem=(1, 1.0))])

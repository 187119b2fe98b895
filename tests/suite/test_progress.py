"""The progress line: step, total and remaining time are whole at every width."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from suite import progress
from suite.progress import TrainingProgress, compose
from tasks.base import Metric

NAME = "wikitext103 · fem-simple-gla"
FIGURES = ["valid perplexity 12,345.678 bits/byte", "loss 10.1234", "123,456 sequences/s"]


@pytest.mark.parametrize("width", [40, 59, 60, 79, 80, 81, 100, 110, 160, 300])
@pytest.mark.parametrize("total", [7, 1000, 10**9])
@pytest.mark.parametrize("left", [None, 0.4, 59, 3601, 400_000])
def test_step_total_and_remaining_time_are_in_every_line(width, total, left):
    for done in (0, 1, total // 2, total):
        line = compose(NAME, (done, total), (12.0, left), FIGURES, width)
        assert f"{done}/{total}" in line
        assert line.endswith(" left")
        assert "\n" not in line
        assert len(line) <= width


def test_what_does_not_fit_is_left_out_in_order():
    def shown(width: int) -> list[bool]:
        line = compose(NAME, (5, 10), (65, 65), FIGURES, width)
        return [text in line for text in (NAME[:7], *FIGURES, NAME, "━", "1:05  1:05 left")]

    assert shown(20) == [False] * 7
    assert shown(36)[:2] == [True, False]
    assert shown(80)[:3] == [True, True, True]
    assert shown(160) == [True] * 7
    counts = [sum(shown(width)) for width in range(20, 170)]
    assert counts[0] == 0
    assert counts[-1] == 7


@pytest.mark.parametrize("width", [60, 80, 120])
def test_the_line_on_a_terminal_fits_it(monkeypatch, width):
    console = Console(file=io.StringIO(), force_terminal=True, width=width, color_system=None)
    monkeypatch.setattr(progress, "err", console)
    metric = Metric("bits_per_byte", higher_is_better=False, unit="bits/byte")
    with TrainingProgress(NAME, metric, 32, "sequences") as shown:
        shown.started(0, 1000)
        shown.stepped(1000, 2.5, 1e-3, 1.0)
        shown.validated(1000, {"bits_per_byte": 3.25})
        shown.stepped(1000, 2.5, 1e-3, 1.0)
    with console.capture() as captured:
        console.print(shown.bar.get_renderable())
    [line] = captured.get().splitlines()
    assert len(line.rstrip()) <= width
    assert "1000/1000" in line
    assert "left" in line
    assert ("valid bits_per_byte 3.250" if width >= 80 else "loss 2.5000") in line

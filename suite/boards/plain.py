"""A board as plain JSON values."""

from __future__ import annotations

from typing import Any

from suite.boards import columns
from suite.boards.board import Board


def plain(board: Board) -> dict[str, Any]:
    """What `--json` prints of a board."""
    shown = [column for column in columns.COLUMNS if column.json]
    return {
        "task": board.task,
        "domain": board.domain,
        "scale": board.scale,
        "deviations": list(board.deviations),
        "metric": board.metric.name,
        "higher_is_better": board.metric.higher_is_better,
        "noise": _noise(board),
        "left_out": [{"run": each.id, "reason": each.reason} for each in board.left_out],
        "unfinished": board.unfinished,
        "refused": board.refused,
        "rows": [{column.name: column.value(row) for column in shown} for row in board.rows],
    }


def _noise(board: Board) -> dict[str, Any] | None:
    noise = board.noise
    if noise is None:
        return None
    rho, calibrated = (
        {"estimate": each.estimate, "low": each.low} if each else None for each in (noise.correlation, noise.calibrated)
    )
    return {
        "deviation": noise.deviation,
        "correlation": rho,
        "test": noise.test,
        "calibrated": calibrated,
        "detectable": noise.detectable,
    }

"""A board as plain JSON values."""

from __future__ import annotations

from typing import Any

from suite.boards.board import Board
from suite.boards.columns import table
from suite.boards.pair import leading
from suite.statistics.comparisons import Difference


def plain(board: Board) -> dict[str, Any]:
    """What `--json` prints of a board."""
    shown = [column for column in table.COLUMNS if column.json]
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
        **_leading(board),
        **_orders(board),
    }


def _leading(board: Board) -> dict[str, Any]:
    """The first two rows over seeds and test units; nothing where their records have no units."""
    pair = leading(board)
    if pair is None or pair.over_units is None:
        return {}
    over_seeds = {"estimate": pair.difference.estimate, **_interval(pair.difference)}
    both = {"units": pair.units, **_interval(pair.over_units)}
    return {"leading": {"a": pair.one.mixer, "b": pair.other.mixer, "difference": over_seeds, "over_units": both}}


def _orders(board: Board) -> dict[str, Any]:
    """The order against other scales; nothing where the rows are on no other board."""
    found = [
        {
            "scale": order.scale,
            "mixers": list(order.mixers),
            "tau": order.agreement.tau,
            "low": order.agreement.low,
            "high": order.agreement.high,
        }
        for order in board.orders
    ]
    return {"orders": found} if found else {}


def _interval(found: Difference) -> dict[str, float]:
    low, high = found.interval()
    return {"low": low, "high": high, "p": found.p}


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

"""The Pareto fronts of a board: quality against FLOPs, and against the state that decoding keeps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from suite.boards.rows import Row
from tasks.base import Metric

#: What a row costs, by the name that boards have for it; 0 where it costs nothing of the kind.
COSTS: dict[str, Callable[[Row], int]] = {
    "FLOPs": lambda row: row.first.certificate.flops,
    "state": lambda row: row.first.certificate.state_bytes,
}


def with_fronts(rows: Sequence[Row], metric: Metric) -> list[Row]:
    """Adds to each row with a rank the fronts that it is on: no other such row has a mean at least as good for at most
    the same cost, and is better in one of both. Means are compared as they are, without a test.

    Args:
        rows: all rows of a board.
        metric: the primary metric.

    Returns:
        The rows.
    """
    ranked = [row for row in rows if not row.unranked]
    sign = 1.0 if metric.higher_is_better else -1.0

    def beats(other: Row, row: Row, cost: Callable[[Row], int]) -> bool:
        better, cheaper = sign * (other.mean - row.mean), cost(row) - cost(other)
        return better >= 0 and cheaper >= 0 and (better > 0 or cheaper > 0)

    def fronts(row: Row) -> tuple[str, ...]:
        return tuple(
            name
            for name, cost in COSTS.items()
            if cost(row) and not any(beats(other, row, cost) for other in ranked if cost(other))
        )

    return [row if row.unranked else replace(row, fronts=fronts(row)) for row in rows]

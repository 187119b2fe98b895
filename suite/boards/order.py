"""Whether the order of a board's rows is that of another scale: what a small board says about larger runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from suite.boards.rows import Row
from suite.statistics.order import Agreement, agreement
from suite.statistics.samples import Scores

#: With fewer rows a permutation by chance is too likely to say anything.
FEWEST_ROWS = 3


@dataclass(frozen=True)
class Order:
    """The order of a board's rows against that at another scale.

    scale: the other one.
    mixers: the rows that both have, in the order of this board.
    agreement: Kendall's τ of the two orders.
    """

    scale: str
    mixers: tuple[str, ...]
    agreement: Agreement

    def __str__(self) -> str:
        tau, low, high = (f"{value:.2f}" for value in (self.agreement.tau, self.agreement.low, self.agreement.high))
        names = ", ".join(self.mixers)
        return (
            f"order against {self.scale}: Kendall's τ {tau} ({low} to {high} over seeds) of {len(self.mixers)} mixers: "
            f"{names}"
        )


def order(rows: Sequence[Row], others: Sequence[Row], scale: str) -> Order | None:
    """Compares the order of a board's rows with that at another scale.

    Args:
        rows: of the board.
        others: those of its task at the other scale.
        scale: the other scale.

    Returns:
        The comparison; None where the boards share fewer than three rows.
    """
    own, theirs = _scores(rows), _scores(others)
    shared = [name for name in own if name in theirs]
    if len(shared) < FEWEST_ROWS:
        return None
    return Order(scale, tuple(shared), agreement([own[name] for name in shared], [theirs[name] for name in shared]))


def _scores(rows: Sequence[Row]) -> dict[str, Scores]:
    """Of the rows with a rank and several seeds, by what was entered, in the order of the board."""
    return {row.entry: row.figures.scores for row in rows if not row.unranked and row.figures is not None}

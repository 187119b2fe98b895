"""Two rows of a board compared with each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

from suite.boards.board import Board
from suite.boards.rows import Row
from suite.statistics.comparisons import Difference, Test, difference
from suite.statistics.noise import LEVEL, deviation, more_seeds
from suite.statistics.ranking import Compared, Verdict, verdict

#: Beyond this many more seeds per row, boards say that no practical number would do.
MOST_SEEDS = 1000


@dataclass(frozen=True)
class Pair:
    """The comparison of two rows.

    board: which holds both.
    one, other: the rows.
    test: by which they were compared.
    difference: in quality, positive where the first row is better; its p value is that of one comparison.
    seeds: how many more seeds each row would need to be distinguished with power .8 if the difference were the measured
        one; 0 where they are distinguished already, None where more than `MOST_SEEDS` would be needed.
    """

    board: Board
    one: Row
    other: Row
    test: Test
    difference: Difference
    seeds: int | None

    @property
    def verdict(self) -> Verdict:
        """What may be said of the first row against the other."""
        return verdict(Compared(self.difference, self.difference.p), equivalence=None)


def pairs(boards: Sequence[Board], one: str, other: str) -> list[Pair]:
    """Compares two mixers on every board that has rows of both with two or more seeds.

    Args:
        boards: any.
        one: the first mixer, or the whole name of one of its rows.
        other: the second, in the same way.

    Returns:
        One comparison for each pair of rows, those with a rank first.
    """
    found = []
    for board in boards:
        rows = [row for row in board.rows if row.figures]
        firsts, seconds = ([row for row in rows if _is_named(row, name)] for name in (one, other))
        found += [_pair(board, a, b) for a, b in product(firsts, seconds) if a is not b]
    return found


def _is_named(row: Row, name: str) -> bool:
    """Whether a name means a row: its whole name, or the mixer with the options given for it."""
    return name in (row.mixer, row.entry)


def _pair(board: Board, one: Row, other: Row) -> Pair:
    assert one.figures is not None
    assert other.figures is not None
    a, b = one.figures.scores, other.figures.scores
    test: Test = board.noise.test if board.noise else "welch"
    found = difference(a, b, test)
    seeds = min(len(a.by_seed), len(b.by_seed))
    needed = 0 if found.p <= LEVEL else more_seeds(found.estimate, deviation([a, b]), seeds, most=MOST_SEEDS)
    return Pair(board, one, other, test, found, needed)

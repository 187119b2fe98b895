"""Two rows of a board compared with each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np

from suite.boards.board import Board
from suite.boards.rows import Row
from suite.records.schema import TestUnits
from suite.statistics.comparisons import Difference, Test, difference
from suite.statistics.noise import LEVEL, deviation, more_seeds
from suite.statistics.ranking import Compared, Verdict, verdict
from suite.statistics.samples import Array
from suite.statistics.units import over_units

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
    units: what the test set is a sample of, such as addresses; None where a record of either row has no figures of
        them.
    over_units: the difference with the error of other seeds and another test set.
    """

    board: Board
    one: Row
    other: Row
    test: Test
    difference: Difference
    seeds: int | None
    units: str | None = None
    over_units: Difference | None = None

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


def leading(board: Board) -> Pair | None:
    """Compares the first ranked row with the next.

    Args:
        board: the board.

    Returns:
        The comparison; None with fewer than two ranked rows of two or more seeds.
    """
    first = [row for row in board.rows if not row.unranked][:2]
    return _pair(board, *first) if len(first) == 2 and all(row.figures for row in first) else None


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
    units = _units(one, other)
    return Pair(
        board,
        one,
        other,
        test,
        found,
        needed,
        units.word if units else None,
        over_units(found, _sums(one), _sums(other), np.array(units.counts), test) if units else None,
    )


def _units(one: Row, other: Row) -> TestUnits | None:
    """The test units of two rows, where all of their records have the same."""
    every = [made.test_units for made in (*one.records, *other.records)]
    first = every[0]
    if first is None or any(
        each is None or each.word != first.word or not _alike(each.counts, first.counts) for each in every
    ):
        return None
    return first


def _alike(one: Sequence[float], other: Sequence[float]) -> bool:
    """Counts that are sums of the data's values differ between machines in their last digits."""
    return len(one) == len(other) and bool(np.allclose(one, other, rtol=1e-6, atol=0))


def _sums(row: Row) -> dict[int, Array]:
    return {made.seed: np.array(made.test_units.sums) for made in row.records if made.test_units}

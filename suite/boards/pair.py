"""Two rows of a board compared with each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np

from suite.boards.board import Board
from suite.boards.rows import Row, is_reference
from suite.records.schema import TestUnits
from suite.statistics.comparisons import Difference, Test, difference
from suite.statistics.noise import LEVEL, deviation, more_seeds
from suite.statistics.ranking import Compared, Verdict, all_pairs, verdict
from suite.statistics.samples import Array, Scores
from suite.statistics.units import over_units

#: Beyond this many more seeds per row, boards say that no practical number would do.
MOST_SEEDS = 1000
OPPOSITE: dict[Verdict, Verdict] = {
    "better": "worse",
    "worse": "better",
    "equivalent": "equivalent",
    "undecided": "undecided",
}


@dataclass(frozen=True)
class Pair:
    """The comparison of two rows.

    board: which holds both.
    one, other: the rows.
    test: by which they were compared.
    difference: in quality, positive where the first row is better; its p value is that of one comparison.
    p: adjusted over the board: over all rows where one of both is softmax, else over all pairs of rows. Whoever looks
        for a pair on a board has looked at all of them.
    verdict: what the board says of the first row against the other.
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
    p: float
    verdict: Verdict
    seeds: int | None
    units: str | None = None
    over_units: Difference | None = None


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
    p, said, family = _on_the_board(board, one, other, found, test)
    needed = 0 if p <= LEVEL else _seeds_to_decide(found.estimate, [a, b], family)
    units = _units(one, other)
    return Pair(
        board,
        one,
        other,
        test,
        found,
        p,
        said,
        needed,
        units.word if units else None,
        over_units(found, _sums(one), _sums(other), np.array(units.counts), test) if units else None,
    )


def _on_the_board(board: Board, one: Row, other: Row, found: Difference, test: Test) -> tuple[float, Verdict, int]:
    """The adjusted p value of two rows, the verdict, and the number of comparisons that it was adjusted for."""
    assert one.figures is not None
    assert other.figures is not None
    ranked = [row for row in board.rows if not row.unranked and row.figures]
    for row, reference in ((one, other), (other, one)):
        known = row.figures
        if known and known.compared and known.verdict and is_reference(reference) and not reference.unranked:
            return known.compared.p, known.verdict if row is one else OPPOSITE[known.verdict], len(ranked) - 1
    places = {id(row): place for place, row in enumerate(ranked)}
    if id(one) in places and id(other) in places:
        i, j = sorted((places[id(one)], places[id(other)]))
        family = all_pairs([row.figures.scores for row in ranked if row.figures], test)
        p, count = family[i, j].p, len(family)
    else:  # a row without a rank belongs to no family: as if it were one more row of this board
        count = len(ranked) * (len(ranked) + 1) // 2 or 1
        p = min(1.0, found.p * count)
    return p, verdict(Compared(found, p), equivalence=None), count


def _seeds_to_decide(estimate: float, rows: Sequence[Scores], family: int) -> int | None:
    """How many more seeds each row would need; at least one, since those that are there did not decide."""
    seeds = min(len(row.by_seed) for row in rows)
    needed = more_seeds(estimate, deviation(rows), seeds, family, MOST_SEEDS)
    return None if needed is None else max(1, needed)


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

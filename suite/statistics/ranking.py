"""Shared ranks: rows that no test separates have the same rank, and each rank comes with its interval."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

import numpy as np

from suite.statistics.comparisons import Difference, Test, difference, holm, max_t
from suite.statistics.noise import LEVEL
from suite.statistics.samples import Scores, on_equal_seeds

Verdict = Literal["better", "worse", "equivalent", "undecided"]
#: The exchange rate up to which two rows count as equivalent.
MARGIN = 1.125


@dataclass(frozen=True)
class Rank:
    """A row's rank among rows.

    first: 1 + the number of rows that are significantly better; the row's rank.
    last: the number of rows minus those that are significantly worse.
    """

    first: int
    last: int

    def __str__(self) -> str:
        return str(self.first) if self.first == self.last else f"{self.first}–{self.last}"


@dataclass(frozen=True)
class Compared:
    """A row's comparison with the reference.

    difference: to the reference, positive where the row is better.
    p: adjusted over all rivals; on a paired board the larger one of both procedures.
    p_flips: on a paired board, that of the sign flips; else None.
    """

    difference: Difference
    p: float
    p_flips: float | None = None

    @property
    def significant(self) -> bool:
        """Whether the row differs from the reference at level .05 over the whole board."""
        return self.p <= LEVEL


def compare_with(reference: Scores, rivals: Sequence[Scores], test: Test) -> list[Compared]:
    """Compares rows with the reference: Holm over all of them; on a paired board also by sign flips, and significant
    only where both agree.

    Args:
        reference: the row that all others are compared with.
        rivals: the other rows, each with at least two seeds.
        test: the board's test.

    Returns:
        One comparison per rival.
    """
    found = [difference(row, reference, test) for row in rivals]
    ps = holm([each.p for each in found])
    if test == "welch" or not rivals:
        return [Compared(each, p) for each, p in zip(found, ps, strict=True)]
    values_SR = on_equal_seeds([reference, *rivals])
    flips = max_t(values_SR[:, 1:] - values_SR[:, :1])
    return [Compared(each, max(p, flip), flip) for each, p, flip in zip(found, ps, flips, strict=True)]


def ranks(rows: Sequence[Scores], test: Test) -> list[Rank]:
    """Shared ranks over all pairs of rows, Holm-adjusted together.

    Args:
        rows: each with at least two seeds.
        test: the board's test.

    Returns:
        One rank per row.
    """
    found = all_pairs(rows, test)
    beats = np.zeros((len(rows), len(rows)), dtype=bool)
    for (i, j), each in found.items():
        if each.significant:
            beats[(i, j) if each.difference.estimate > 0 else (j, i)] = True
    return [Rank(1 + int(beats[:, i].sum()), len(rows) - int(beats[i].sum())) for i in range(len(rows))]


def all_pairs(rows: Sequence[Scores], test: Test) -> dict[tuple[int, int], Compared]:
    """Each row compared with each later one, Holm-adjusted together.

    Args:
        rows: each with at least two seeds.
        test: the board's test.

    Returns:
        (i, j) with i < j → the comparison, positive where row i is better.
    """
    pairs = list(combinations(range(len(rows)), 2))
    found = [difference(rows[i], rows[j], test) for i, j in pairs]
    adjusted = holm([each.p for each in found])
    return {pair: Compared(each, p) for pair, each, p in zip(pairs, found, adjusted, strict=True)}


def verdict(compared: Compared, equivalence: tuple[float, float] | None, margin: float = MARGIN) -> Verdict:
    """What may be said of a row against the reference.

    Args:
        compared: its comparison.
        equivalence: the 90 % interval of its exchange rate; None where there is none (a flat curve) or it is unbounded.
        margin: the exchange rate up to which two rows count as equivalent.

    Returns:
        "better" or "worse" where the test decides; "equivalent" where the interval lies inside the margins; else
        "undecided": not significant never means equal.
    """
    if compared.significant:
        return "better" if compared.difference.estimate > 0 else "worse"
    inside = equivalence is not None and 1 / margin <= equivalence[0] and equivalence[1] <= margin
    return "equivalent" if inside else "undecided"

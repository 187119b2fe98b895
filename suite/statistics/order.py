"""Whether two boards of the same mixers have the same order: Kendall's τ with its interval over seeds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from suite.statistics.noise import LEVEL, deviation
from suite.statistics.samples import Array, Scores

DRAWS = 10_000


@dataclass(frozen=True)
class Agreement:
    """How far two orders agree.

    tau: Kendall's τ-b of the means, 1 for the same order and -1 for the opposite one.
    low, high: its 95 % interval over seeds. It says nothing of mixers that are not among the rows.
    """

    tau: float
    low: float
    high: float


def agreement(one: Sequence[Scores], other: Sequence[Scores]) -> Agreement:
    """Compares the order of the same rows on two boards.

    The interval is that of a parametric bootstrap: each mean is drawn again with its standard error, from the deviation
    of a run pooled over its board's rows. It depends neither on the order of the rows nor on which board comes first.

    Args:
        one: at least two rows, some row with two seeds.
        other: the same rows on the other board, in the same order.

    Returns:
        τ and its interval.

    Raises:
        ValueError: fewer than two rows, unequal numbers of rows, or no row with two seeds on a board.
    """
    if len(one) != len(other) or len(one) < 2:
        raise ValueError(f"{len(one)} and {len(other)} rows; an order needs the same two rows or more")
    (one_R, one_error_R), (other_R, other_error_R) = _in_one_order(_means_and_errors(one), _means_and_errors(other))
    random = np.random.default_rng(0)  # a fixed seed: the same records give the same board
    drawn = [random.normal(*each, (DRAWS, len(one))) for each in ((one_R, one_error_R), (other_R, other_error_R))]
    low, high = np.quantile(kendall(*drawn), (LEVEL / 2, 1 - LEVEL / 2), method="closest_observation")
    return Agreement(float(kendall(one_R[None], other_R[None])[0]), float(low), float(high))


def kendall(one_DR: Array, other_DR: Array) -> Array:
    """Kendall's τ-b (Kendall 1945): concordant minus discordant pairs, over the geometric mean of the numbers of pairs
    that are no ties.

    Args:
        one_DR: values to rank, [drawings, rows].
        other_DR: the other values, [drawings, rows].

    Returns:
        `[drawings]`; 0 where one side is all ties.
    """
    i, j = np.triu_indices(one_DR.shape[1], 1)
    a_DP, b_DP = (np.sign(x[:, i] - x[:, j]) for x in (one_DR, other_DR))
    untied_D = np.sqrt((a_DP**2).sum(1) * (b_DP**2).sum(1))
    together_D = (a_DP * b_DP).sum(1)
    return np.divide(together_D, untied_D, out=np.zeros_like(together_D), where=untied_D > 0)


def _in_one_order(one_2R: Array, other_2R: Array) -> list[Array]:
    """The boards and their rows in an order that follows from the figures alone, so that the same rows draw the same
    numbers on both boards' pages.
    """
    both = (np.concatenate(boards_22R) for boards_22R in ((one_2R, other_2R), (other_2R, one_2R)))
    in_order = min((each_4R[:, np.lexsort(each_4R[::-1])] for each_4R in both), key=np.ndarray.tolist)
    return [in_order[:2], in_order[2:]]


def _means_and_errors(rows: Sequence[Scores]) -> Array:
    """The quality of each row and its standard error, [2, rows]."""
    sigma = deviation(rows)
    if math.isnan(sigma):
        raise ValueError("no row has two seeds: the means' errors are not known")
    errors = [math.sqrt(sigma**2 / len(row.by_seed) + row.choice_variance) for row in rows]
    return np.array([[row.quality.mean() for row in rows], errors])

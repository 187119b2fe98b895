"""Boards of raced mixers drawn from a known truth, many at once.

The race and the tests are written here for whole arrays of boards. `tests/suite/statistics/test_simulations.py` holds
them equal to `suite.statistics.race` and `suite.statistics` board by board.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from scipy import stats

from suite.statistics.choice import SHARE
from suite.statistics.noise import LEVEL, break_even

Noise = Literal["normal", "t3", "skewed", "outliers", "unequal", "correlated"]
NOISES: tuple[Noise, ...] = ("normal", "t3", "skewed", "outliers", "unequal", "correlated")
GAPS = (0.0, 0.5, 1.0, 2.0, 4.0)
CORRELATIONS = (0.5, 0.9)
#: Three rates of the grid and two that a moved window may reach on either side.
RATES = 7
GRID = (2, 3, 4)
SEEDS, FIRST = 8, 4
#: Correlation of equal seeds between mixers in the noise of that name.
SEED_RHO = 0.6

Array = np.ndarray[tuple[int, ...], np.dtype[np.float64]]


@dataclass(frozen=True)
class Cell:
    """One kind of simulated board.

    noise: the distribution of a run's error, of unit deviation.
    gap: between the best learning rate and its neighbours, in deviations of a run.
    validation: the correlation of validation and test over runs of one arm.
    equal: whether all mixers have the same curve; else every second one is flat in the rate, with the same best value.
    mixers: on the board, the reference included.
    effect: true advantage of the last mixer, in deviations of a run.
    """

    noise: Noise
    gap: float
    validation: float
    equal: bool = True
    mixers: int = 10
    effect: float = 0.0


def unit_noise(noise: Noise, shape: tuple[int, ...], rng: np.random.Generator) -> Array:
    """Independent errors of mean 0 and deviation 1.

    Args:
        noise: the distribution.
        shape: [boards, mixers, rates, seeds].
        rng: the source of randomness.

    Returns:
        The errors.
    """
    if noise == "t3":
        return rng.standard_t(3, shape) / np.sqrt(3.0)
    if noise == "skewed":
        return rng.exponential(1.0, shape) - 1.0
    if noise == "outliers":  # one in twenty is six times as wide
        wide = rng.random(shape) < 0.05
        return rng.normal(size=shape) * np.where(wide, 6.0, 1.0) / np.sqrt(0.95 + 0.05 * 36)
    return rng.normal(size=shape)


def draw(cell: Cell, boards: int, rng: np.random.Generator) -> tuple[Array, Array]:
    """Validation and test figures of every run that a race could ask for; larger is better.

    Args:
        cell: the kind of board.
        boards: how many.
        rng: the source of randomness.

    Returns:
        validation_BMRS and test_BMRS, [boards, mixers, rates, seeds].
    """
    shape = (boards, cell.mixers, RATES, SEEDS)
    shared = unit_noise(cell.noise, shape, rng)
    valid = np.sqrt(cell.validation) * shared + np.sqrt(1 - cell.validation) * unit_noise(cell.noise, shape, rng)
    test = np.sqrt(cell.validation) * shared + np.sqrt(1 - cell.validation) * unit_noise(cell.noise, shape, rng)
    if cell.noise == "correlated":
        seed = rng.normal(size=(boards, 1, 1, SEEDS))
        valid, test = (np.sqrt(SEED_RHO) * seed + np.sqrt(1 - SEED_RHO) * each for each in (valid, test))
    if cell.noise == "unequal":
        widths = np.geomspace(0.5, 2.0, cell.mixers)[None, :, None, None]
        valid, test = widths * valid, widths * test
    curve = -float(cell.gap) * np.abs(np.arange(RATES) - RATES // 2)
    curves_MR = np.repeat(curve[None], cell.mixers, axis=0)
    if not cell.equal:
        curves_MR[1::2] = 0.0
    curves_MR[-1] += cell.effect
    return valid + curves_MR[None, :, :, None], test + curves_MR[None, :, :, None]


@dataclass(frozen=True)
class Raced:
    """The results of many races.

    chosen_BM: indices of the chosen rates, [boards, mixers].
    complete_BMR: whether a rate ran on all seeds, [boards, mixers, rates].
    """

    chosen_BM: np.ndarray
    complete_BMR: np.ndarray


def race(valid_BMRS: Array, moves: int = 2) -> Raced:
    """Runs many races at once.

    Args:
        valid_BMRS: validation figures, [boards, mixers, rates, seeds].
        moves: of the window, at most.

    Returns:
        What they choose.
    """
    first, means = valid_BMRS[..., :FIRST].mean(axis=-1), valid_BMRS.mean(axis=-1)
    order = np.argsort(-first[..., GRID[0] : GRID[-1] + 1], axis=-1, kind="stable")[..., :2] + GRID[0]
    final = np.full(means.shape, -np.inf)
    np.put_along_axis(final, order, np.take_along_axis(means, order, axis=-1), axis=-1)
    low, high = (np.full(final.shape[:-1], edge) for edge in (GRID[0], GRID[-1]))
    for _ in range(moves):
        best = final.argmax(axis=-1)
        down, up = best == low, best == high
        low, high = low - down, high + up
        beyond = np.where(down, low, high)[..., None]
        source = np.where((down | up)[..., None], means, final)
        np.put_along_axis(final, beyond, np.take_along_axis(source, beyond, axis=-1), axis=-1)
    return Raced(final.argmax(axis=-1), np.isfinite(final))


def of_rate(values: Array, chosen_BM: np.ndarray) -> Array:
    """The chosen rate's values, the axis of rates removed."""
    return np.take_along_axis(values, chosen_BM.reshape(*chosen_BM.shape, *[1] * (values.ndim - 2)), axis=2)[:, :, 0]


def choice_variances(valid_BMRS: Array, test_BMRS: Array, raced: Raced) -> Array:
    """`suite.statistics.choice.choice_variance` of every race, [boards, mixers]."""
    ran = raced.complete_BMR | np.isin(np.arange(RATES), GRID)
    counts = np.where(raced.complete_BMR, SEEDS, FIRST)[..., None]
    seen = np.arange(SEEDS) < counts
    figures = np.where(seen, (valid_BMRS + test_BMRS) / 2, 0.0)
    without_BMRS = (figures.sum(axis=-1, keepdims=True) - figures) / (counts - seen)  # the mean without that seed
    losses = (without_BMRS - of_rate(without_BMRS, raced.chosen_BM)[:, :, None]).max(axis=-1)
    return SHARE * np.where(ran, losses, 0.0).max(axis=-1) ** 2  # at least 0, the chosen rate's own


def rejected(scores_BMS: Array, choice_BM: Array, paired: bool) -> np.ndarray:
    """Which mixers differ from the first one after Holm's correction, [boards, mixers - 1]."""
    reference, rivals = scores_BMS[:, :1], scores_BMS[:, 1:]
    means = rivals.mean(axis=-1) - reference.mean(axis=-1)
    if paired:
        variance = (rivals - reference).var(axis=-1, ddof=1) / SEEDS
        freedom: Array | float = SEEDS - 1.0
    else:
        a, b = (each.var(axis=-1, ddof=1) / SEEDS for each in (rivals, reference))
        variance, freedom = a + b, (a + b) ** 2 / ((a**2 + b**2) / (SEEDS - 1))
    p = 2 * stats.t.sf(np.abs(means) / np.sqrt(variance + choice_BM[:, 1:] + choice_BM[:, :1]), freedom)
    order = np.argsort(p, axis=-1)
    steps = np.take_along_axis(p, order, axis=-1) * np.arange(p.shape[-1], 0, -1)
    result = np.empty(p.shape, dtype=bool)
    np.put_along_axis(result, order, np.maximum.accumulate(steps, axis=-1) <= LEVEL, axis=-1)
    return result


@dataclass(frozen=True)
class Outcome:
    """What the procedure did over the boards of a cell.

    family: fraction of boards with a false difference to the reference.
    family_low: the lower end of its one-sided 99 % interval (Clopper and Pearson).
    power: fraction of boards on which the last mixer's true effect is found; NaN without an effect.
    moved: fraction of races whose window moved.
    """

    family: float
    family_low: float
    power: float
    moved: float


def outcome(cell: Cell, boards: int, seed: int, block: int = 1000, known_rate: bool = False) -> Outcome:
    """Runs the procedure on many boards of a cell.

    Args:
        cell: the kind of board.
        boards: how many.
        seed: of the randomness.
        block: boards at once, which bounds memory.
        known_rate: whether the truly best rate is given, so that nothing is chosen.

    Returns:
        Its error rates.
    """
    rng = np.random.default_rng(seed)
    paired = cell.noise == "correlated" and break_even(SEEDS, cell.mixers - 1) < SEED_RHO
    false = found = moved = 0
    for start in range(0, boards, block):
        valid, test = draw(cell, min(block, boards - start), rng)
        raced = race(valid)
        if known_rate:
            raced = replace(raced, chosen_BM=np.full_like(raced.chosen_BM, RATES // 2))
        moved += int((raced.complete_BMR.sum(axis=-1) > 2).sum())
        choice = choice_variances(valid, test, raced) * (not known_rate)
        differs = rejected(of_rate(test, raced.chosen_BM), choice, paired)
        true = differs[:, -1] if cell.effect else np.zeros(len(differs), dtype=bool)
        others = differs[:, :-1] if cell.effect else differs
        false, found = false + int(others.any(axis=1).sum()), found + int(true.sum())
    low = float(stats.beta.ppf(0.01, false, boards - false + 1)) if false else 0.0
    power = found / boards if cell.effect else float("nan")
    return Outcome(false / boards, low, power, moved / boards / cell.mixers)

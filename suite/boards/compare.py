"""From the rows of a board to its comparisons."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np

from suite.boards.figures import Figures, Noise, curve_of, figures, noise, test_of
from suite.boards.naming import configuration
from suite.boards.raced import FIRST_CALIBRATION_SEED, Raced
from suite.boards.rows import Row, by_seed, curve_factor, has_figures, is_reference
from suite.records.schema import Record
from suite.statistics.choice import choice_variance, optimism
from suite.statistics.samples import Scores
from tasks.base import Metric


def compared(rows: Sequence[Row], records: Iterable[Record], metric: Metric) -> tuple[list[Row], Noise | None]:
    """Adds to each row with two or more seeds its comparisons with the others.

    Args:
        rows: all rows of a board.
        records: all its records, those of calibration seeds among them.
        metric: the primary metric.

    Returns:
        The rows, and how noisy the board is; None where no ranked row has two seeds.
    """
    usable = [row for row in rows if len(row.records) > 1]
    scored = {id(row): scores(row, metric) for row in usable}
    ranked = [row for row in usable if not row.unranked]
    if not ranked:
        return list(rows), None
    test, calibrated = test_of(_calibration(records, metric), min(len(row.records) for row in ranked))
    curve = curve_of({f: scored[id(row)] for row in usable if (f := curve_factor(row)) is not None})
    reference = next((i for i, row in enumerate(usable) if is_reference(row)), None)
    every = figures([scored[id(row)] for row in usable], [not row.unranked for row in usable], reference, curve, test)
    found = noise([scored[id(row)] for row in ranked], test, calibrated)
    made = {
        id(row): replace(row, figures=_with_optimism(each, row, found, metric))
        for row, each in zip(usable, every, strict=True)
    }
    return [made.get(id(row), row) for row in rows], found


def scores(row: Row, metric: Metric) -> Scores:
    """The figures of a row over its seeds, with what choosing its rate adds to their variance.

    Args:
        row: any row.
        metric: the primary metric.

    Returns:
        The scores.
    """
    added = 0.0
    if row.race and row.race.chosen is not None and len(row.race.finals) > 1:
        valid, test = (
            {rate: _quality(runs, split, metric) for rate, runs in row.race.finals.items()} for split in SPLITS
        )
        added = choice_variance(valid, test, row.race.chosen)
    return Scores(row.mixer, dict(by_seed(row.records, "test")), metric.higher_is_better, added)


SPLITS = ("valid", "test")


def _with_optimism(each: Figures, row: Row, found: Noise, metric: Metric) -> Figures:
    race: Raced | None = row.race
    if race is None or race.chosen is None or len(race.finals) < 2:
        return each
    means = [float(_quality(runs, "valid", metric).mean()) for runs in race.finals.values()]
    pairs = [(_quality(runs, "valid", metric), _quality(runs, "test", metric)) for runs in race.finals.values()]
    centred = [np.concatenate([p[k] - p[k].mean() for p in pairs]) for k in (0, 1)]
    scale = float(np.sqrt((centred[0] ** 2).sum() * (centred[1] ** 2).sum()))
    rho = float((centred[0] * centred[1]).sum()) / scale if scale else 0.0
    return replace(each, optimism=optimism(means, found.deviation, len(row.records), rho))


def _quality(runs: Sequence[Record], split: str, metric: Metric) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    sign = 1.0 if metric.higher_is_better else -1.0
    return np.array([sign * made.metrics[split][made.primary_metric] for made in runs])  # type: ignore[index]


def _calibration(records: Iterable[Record], metric: Metric) -> list[Scores]:
    """The runs with calibration seeds, by configuration."""
    found: dict[str, dict[int, float]] = defaultdict(dict)
    for made in records:
        if made.seed >= FIRST_CALIBRATION_SEED and has_figures(made):
            found[configuration(made)][made.seed] = made.metrics["test"][made.primary_metric]
    return [Scores(name, seeds, metric.higher_is_better) for name, seeds in found.items()]

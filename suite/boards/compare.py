"""From the rows of a board to its comparisons."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from suite.boards.figures import Figures, Noise, curve_of, figures, noise, test_of
from suite.boards.naming import configuration
from suite.boards.raced import FIRST_CALIBRATION_SEED
from suite.boards.rows import Row, curve_factor, has_figures, is_reference, scores_of
from suite.records.schema import Record
from suite.statistics.choice import choice_variance, optimism
from suite.statistics.samples import Array, Scores
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
    scored = [scores(row, metric) for row in usable]
    ranked = [not row.unranked for row in usable]
    used = [each for each, has_rank in zip(scored, ranked, strict=True) if has_rank]
    if not used:
        return list(rows), None
    test, calibrated = test_of(_calibration(records, metric), used)
    sizes = {
        factor: each for row, each in zip(usable, scored, strict=True) if (factor := curve_factor(row)) is not None
    }
    reference = next((i for i, row in enumerate(usable) if is_reference(row)), None)
    found = noise(used, test, calibrated)
    every = figures(scored, ranked, reference, curve_of(sizes), test)
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
    if row.race is not None and row.race.chosen is not None:
        eliminated_too = {**row.race.screened, **row.race.finals}
        added = choice_variance(*_by_rate(eliminated_too, metric), row.race.chosen)
    return replace(scores_of(row.records, metric), name=row.mixer, choice_variance=added)


def _by_rate(runs: Mapping[float, tuple[Record, ...]], metric: Metric) -> tuple[dict[float, Array], dict[float, Array]]:
    """Rate → quality on validation, and on test, in the order of the seeds."""
    valid = {rate: scores_of(each, metric, "valid").quality for rate, each in runs.items()}
    return valid, {rate: scores_of(each, metric).quality for rate, each in runs.items()}


def _with_optimism(each: Figures, row: Row, found: Noise, metric: Metric) -> Figures:
    if row.race is None or not row.race.ended or len(row.race.finals) < 2:
        return each
    valid, test = (list(by_rate.values()) for by_rate in _by_rate(row.race.finals, metric))
    means = [float(values.mean()) for values in valid]
    centred = [np.concatenate([values - values.mean() for values in arms]) for arms in (valid, test)]
    scale = float(np.sqrt((centred[0] ** 2).sum() * (centred[1] ** 2).sum()))
    rho = float(centred[0] @ centred[1]) / scale if scale else 0.0
    return replace(each, optimism=optimism(means, found.deviation, len(row.records), rho))


def _calibration(records: Iterable[Record], metric: Metric) -> list[Scores]:
    """The runs with calibration seeds, by configuration."""
    found: dict[str, list[Record]] = defaultdict(list)
    for made in records:
        if made.seed >= FIRST_CALIBRATION_SEED and has_figures(made):
            found[configuration(made)].append(made)
    return [scores_of(runs, metric) for runs in found.values()]
